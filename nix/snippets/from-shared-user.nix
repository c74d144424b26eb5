{ pkgs, ... }:
{
  services.runner-controller = {
    github.url = "https://github.com/acme";
    pools.ci = {
      group = "bare-metal";
      labels = [
        "self-hosted"
        "Linux"
        "X64"
      ];
      maxRunners = 8;
      # The docker group, and the host's Nix with the runner's user as trusted.
      docker = true;
      nix = true;
      layer = {
        kind = "disk";
        size = "60 GiB";
      };
      limits.memory = "16 GiB";
      # user.max_user_namespaces
      limits.userNamespaces = 15000;
      # extraPackages
      image.modules = [ { runner.packages = [ pkgs.gnupg ]; } ];
    };
  };
}
