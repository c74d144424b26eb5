{ config, ... }:
{
  age.secrets = {
    github-widgets.file = ./github-widgets.age;
    github-gadgets.file = ./github-gadgets.age;
    github-umbrella.file = ./github-umbrella.age;
  };
  services.runner-controller = {
    # Instead of github.
    scopes = {
      widgets = {
        url = "https://github.com/acme/widgets";
        tokenFile = config.age.secrets.github-widgets.path;
      };
      gadgets = {
        url = "https://github.com/acme/gadgets";
        tokenFile = config.age.secrets.github-gadgets.path;
      };
      umbrella = {
        url = "https://github.com/umbrella";
        tokenFile = config.age.secrets.github-umbrella.path;
      };
    };
    pools.ci.scope = "widgets";
    pools.gadgets = {
      scope = "gadgets";
      labels = [ "gadgets" ];
      image.directory = "/var/lib/runner-images/debian";
      offset = 20;
      maxRunners = 2;
    };
    pools.org = {
      scope = "umbrella";
      labels = [ "umbrella" ];
      image.directory = "/var/lib/runner-images/debian";
      offset = 30;
      maxRunners = 4;
    };
  };
}
