{ config, ... }:
{
  sops.secrets.github-runner = {
    sopsFile = ./secrets.yaml;
    # agenix's secrets do this by themselves.
    restartUnits = [ "runner-controller.service" ];
  };
  services.runner-controller.github.tokenFile = config.sops.secrets.github-runner.path;
}
