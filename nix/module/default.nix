# `services.runner-controller`: a warm pool of ephemeral containers for GitHub Actions.
#
#   options.nix, pool.nix   what can be said
#   settings.nix            the same as the program's own configuration file
#   images.nix              the NixOS systems that containers boot
#   host.nix                units, firewall and the rest: what the program itself renders, installed
#   reboot.nix              new kernels, without a job lost
#   assertions.nix          what cannot be right, with the line to change
{
  imports = [
    ./options.nix
    ./settings.nix
    ./images.nix
    ./host.nix
    ./reboot.nix
    ./assertions.nix
  ];
}
