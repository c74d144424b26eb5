{ config, pkgs, ... }:
{
  services.runner-controller = {
    # orgRunners."acme".num = 10;
    github.url = "https://github.com/acme";
    pools.ci = {
      maxRunners = 10;
      # The labels that github-nix-ci gives: the host's name and its Nix system.
      labels = [
        config.networking.hostName
        pkgs.stdenv.hostPlatform.system
      ];
      nix = true;
      image.modules = [ { runner.packages = [ pkgs.omnix ]; } ];
    };
  };
}
