# Mistakes that evaluation can find, in the words of the options. `check-config` finds the others while
# the system is built.
#
# images.nix adds the assertions of each pool's NixOS system, and reboot.nix that of its schedule.
{
  imports = [
    ./binds.nix
    ./environment.nix
    ./github.nix
    ./host.nix
    ./network.nix
    ./paths.nix
    ./pools.nix
    ./programs.nix
    ./proxy.nix
  ];
}
