{ config, ... }:
{
  age.secrets.github-app.file = ./github-app.age;
  # Instead of github.tokenFile.
  services.runner-controller.github.app = {
    id = "Iv23liExample";
    keyFile = config.age.secrets.github-app.path;
  };
}
