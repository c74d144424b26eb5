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
      ];
      environment.SOURCES_PATH = "/data/SOURCES_PATH";
      image.modules = [ { runner.packages = [ pkgs.ccache ]; } ];
    };
  };
}
