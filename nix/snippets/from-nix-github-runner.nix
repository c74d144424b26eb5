{ pkgs, ... }:
{
  services.runner-controller = {
    github.url = "https://github.com/acme";
    # A file outside the store instead of environment.etc.gh_token.
    github.tokenFile = "/run/agenix/github-runner";
    pools.bench = {
      labels = [ "bench" ];
      # One job at a time, because two would disturb each other's measurements.
      minSpare = 0;
      maxRunners = 1;
      docker = true;
      # ReadWritePaths and Environment
      binds = [
        {
          from = "/data/SOURCES_PATH";
          to = "/data/SOURCES_PATH";
        }
        {
          from = "/data/BASE_CACHE";
          to = "/data/BASE_CACHE";
          readOnly = false;
        }
        # /nix/var/cache/ccache moves, because only the store of /nix is open.
        {
          from = "/data/ccache";
          to = "/var/cache/ccache";
          readOnly = false;
        }
      ];
      environment = {
        SOURCES_PATH = "/data/SOURCES_PATH";
        BASE_CACHE = "/data/BASE_CACHE";
        CCACHE_DIR = "/var/cache/ccache";
      };
      image.modules = [ { runner.packages = [ pkgs.ccache ]; } ];
    };
  };
}
