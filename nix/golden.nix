# Result of evaluating a host: its configuration file, the additions of NixOS to the program's units, and
# the runner's unit in a container. Store paths appear without hash and version, because every change of
# nixpkgs changes those.
#
# The program's tests read it. They check the configuration, render the units for it, and compare.
{
  lib,
  pkgs,
  host,
}:
let
  cfg = host.config.services.runner-controller;
  anonymous =
    text:
    let
      parts = builtins.split "/nix/store/[0-9a-z]{32}-([A-Za-z-]*[A-Za-z])[^/:\" \n]*" (
        builtins.unsafeDiscardStringContext text
      );
    in
    lib.concatMapStrings (
      part: if builtins.isList part then "/nix/store/${lib.head part}" else part
    ) parts;
  # NixOS gives these variables to every unit, and they differ between releases.
  isOurs =
    line: line != "" && builtins.match "Environment=\"(LOCALE_ARCHIVE|TZDIR|PATH)=/nix/.*" line == null;
  ours = text: lib.filter isOurs (lib.splitString "\n" (anonymous text));
  unit = config: name: ours config.systemd.units.${name}.text;
  # Units to which NixOS adds more than the search path.
  names = [
    "runner-ci@.service"
    "runner-controller-firewall.service"
    "runner-controller.service"
    "runners-ci.slice"
  ];

  # Returns the module's configuration file for some settings, without a host.
  settings =
    given:
    (lib.evalModules {
      specialArgs = { inherit pkgs; };
      modules = [
        ./module/options.nix
        ./module/settings.nix
        {
          options.networking.hostName = lib.mkOption { default = "box"; };
          config.services.runner-controller = {
            enable = true;
            github = lib.mkIf (!given ? scopes) {
              url = "https://github.com/acme/widgets";
              tokenFile = "/run/agenix/github-runner";
            };
            network.resolvers = [ "9.9.9.9" ];
            pools.ci = {
              labels = [ "ci" ];
              maxRunners = 4;
              image.directory = "/var/lib/runner-images/debian";
            };
          };
        }
        { services.runner-controller = given; }
      ];
    }).config.services.runner-controller.settings;
in
{
  # Only required options are set, because the options' defaults must be the program's.
  defaults = settings { };
  # Options that are null by default are set too, because every option must be a key of the program and
  # every key an option.
  everything = settings {
    apiTokenFile = "/run/agenix/runner-controller-api";
    notify = {
      command = [ "/run/current-system/sw/bin/notify" ];
      events = [ "pool_stopped" ];
    };
    webhook = {
      secretFile = "/run/agenix/runner-controller-webhook";
      nextSecretFile = "/run/agenix/runner-controller-webhook-next";
    };
    github.apiUrl = "https://github.example.com/api/v3";
    github.caFile = "/etc/ssl/private-ca.pem";
    github.proxy = {
      url = "http://10.0.0.5:3128";
      noProxy = [ ".corp.example" ];
      credentialsFile = "/run/agenix/github-proxy";
    };
    prometheus.enable = true;
    history = {
      age = "30days";
      runners = 50000;
    };
    logs = {
      keep = "all";
      space = "2 GiB";
      age = "30days";
    };
    reserve = {
      disk = "5 GiB";
      memory = "1 GiB";
    };
    budget = {
      memory = "64 GiB";
      cpu = 32;
      runners = 12;
    };
    queue = {
      fairnessAge = "2m";
      reserveAfter = "30m";
      maxPerRepository = 6;
    };
    priority = [
      {
        name = "release";
        repository = [ "acme/*" ];
        workflow = [ "Release*" ];
        job = [ "deploy" ];
        escalateAfter = "1m";
      }
    ];
    pools.ci = {
      demand = "scale-set";
      scaleSet = "everything";
      schedule = [
        {
          days = [ "sat" ];
          hours = "22:00-06:00";
          timeZone = "Europe/Berlin";
          minIdle = 2;
        }
      ];
      allow = [ "10.0.0.5:3128" ];
      proxy.url = "http://10.0.0.5:3128";
      limits = {
        cpu = 2;
        connections = 16384;
        controlGroupDepth = 32;
        controlGroups = 2000;
        inotifyInstances = 2048;
        inotifyWatches = 1048576;
        namespaces = 2048;
        pendingSignals = 2048;
        terminals = 2048;
        userNamespaces = 0;
      };
      total = {
        memory = "16 GiB";
        cpu = 8;
        tasks = 16384;
      };
    };
  };
  # A repository and an organisation.
  scopes = settings {
    scopes.widgets = {
      url = "https://github.com/acme/widgets";
      tokenFile = "/run/agenix/github-widgets";
    };
    scopes.umbrella = {
      url = "https://github.com/umbrella";
      app.id = "Iv23liExample";
      app.keyFile = "/run/agenix/github-umbrella";
      mintsPerMinute = 60;
    };
    pools.ci.scope = "widgets";
    pools.big = {
      scope = "umbrella";
      group = "fast";
      labels = [ "big" ];
      maxRunners = 2;
      offset = 4;
      image.directory = "/var/lib/runner-images/debian";
    };
  };
  settings = builtins.fromJSON (anonymous (builtins.toJSON cfg.settings));
  units = lib.genAttrs names (unit host.config);
  container = lib.mapAttrs (_: container: {
    unit = ours container.config.runner.unit;
    drop_in = unit container.config "github-runner.service";
    user =
      let
        inherit (container.config.users) groups users;
      in
      {
        inherit (users.runner) uid;
        inherit (groups.${users.runner.group}) gid;
      };
  }) cfg.build.containers;
}
