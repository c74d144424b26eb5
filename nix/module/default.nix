# `services.runner-controller`: a warm pool of ephemeral containers for GitHub Actions.
#
#   options.nix, pool.nix   options
#   settings.nix            their translation into the program's configuration file
#   images.nix              NixOS systems that containers boot
#   rendered.nix            files of the host, which the program renders
#   host.nix                units, users and kernel settings of the host
#   webhook-proxy.nix       nginx in front of the listener for GitHub's deliveries
#   reboot.nix              reboots into a new kernel, without a lost job
#   boot-check.nix          return to an earlier system if no runner of a new one waits for jobs
#   assertions/             mistakes, each with the line to change
{
  imports = [
    ./options.nix
    ./settings.nix
    ./images.nix
    ./rendered.nix
    ./host.nix
    ./webhook-proxy.nix
    ./reboot.nix
    ./boot-check.nix
    ./assertions
  ];
}
