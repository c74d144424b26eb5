# `services.runner-controller`: a warm pool of ephemeral containers for GitHub Actions.
#
#   options.nix, pool.nix   options
#   settings.nix            their translation into the program's configuration file
#   images.nix              NixOS systems that containers boot
#   rendered.nix            files of the host, which the program renders
#   host.nix                units, users and kernel settings of the host
#   reboot.nix              reboots into a new kernel, without a lost job
#   assertions/             mistakes, each with the line to change
{
  imports = [
    ./options.nix
    ./settings.nix
    ./images.nix
    ./rendered.nix
    ./host.nix
    ./reboot.nix
    ./assertions
  ];
}
