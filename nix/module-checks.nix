# The module evaluated with good and bad settings: a good one has no failed assertion, a bad one the one
# that names the line to change.
{
  inputs,
  pkgs,
  system,
}:
let
  inherit (inputs.nixpkgs) lib;

  minimal.services.runner-controller = {
    enable = true;
    github.url = "https://github.com/acme/widgets";
    github.tokenFile = lib.mkDefault "/run/secrets/token";
    network.resolvers = [ "9.9.9.9" ];
    pools.ci = {
      labels = [ "ci" ];
      maxRunners = 4;
    };
  };

  evaluate =
    settings:
    (lib.nixosSystem {
      modules = [
        inputs.self.nixosModules.default
        {
          nixpkgs.hostPlatform = system;
          networking.hostName = "box";
          boot.loader.grub.enable = false;
          fileSystems."/".device = "none";
          fileSystems."/".fsType = "tmpfs";
          system.stateVersion = "26.05";
        }
        minimal
        { services.runner-controller = settings; }
      ];
    }).config;
  failed = config: map (one: one.message) (lib.filter (one: !one.assertion) config.assertions);

  # The module's own assertions, and its containers'. Without a host around them, which would take half
  # a gigabyte for each.
  refused =
    settings:
    let
      inherit
        (lib.evalModules {
          specialArgs = { inherit pkgs; };
          modules = [
            ./module/options.nix
            ./module/settings.nix
            ./module/images.nix
            ./module/assertions.nix
            {
              options = lib.genAttrs [ "assertions" "warnings" ] (
                _: lib.mkOption { type = lib.types.listOf lib.types.unspecified; }
              );
              config = {
                _module.freeformType = lib.types.lazyAttrsOf lib.types.raw;
                networking.hostName = "box";
                boot.kernelPackages.kernel.version = "6.1.150";
                systemd.package = pkgs.systemd;
                system.stateVersion = "26.05";
                virtualisation.docker.enable = false;
              };
            }
            minimal
            { services.runner-controller = settings; }
          ];
        })
        config
        ;
      containers = lib.attrValues config.services.runner-controller.build.containers;
    in
    {
      host = failed config;
      containers = lib.concatMap (container: failed container.config) containers;
    };
  # A container is looked at only if the host says nothing.
  says =
    wanted: said:
    lib.any (lib.hasInfix wanted) said.host || lib.any (lib.hasInfix wanted) said.containers;

  good = lib.mapAttrs (_: evaluate) {
    minimal = { };
    directory.pools.ci.image.directory = "/var/lib/runner-images/debian";
    two-pools.pools.big = {
      labels = [ "big" ];
      offset = 4;
      maxRunners = 2;
    };
    escape-hatch.settings.pools.ci.limits.open_files = 131072;
    app.github = {
      tokenFile = lib.mkForce null;
      app.id = "Iv23liExample";
      app.keyFile = "/run/secrets/app.pem";
    };
    metrics = {
      prometheus.enable = true;
      prometheus.address = "10.0.0.5";
      openMetricsFirewall = true;
    };
    nix.pools.ci = {
      nix = true;
      substituters = [ "https://cache.example.org" ];
    };
    docker.pools.ci = {
      docker = true;
      total.memory = "16 GiB";
    };
    api-token = {
      apiTokenFile = "/run/secrets/api";
      prometheus.enable = true;
    };
    reboots.rebootWhenDrained.enable = true;
    extended.pools.ci.image.modules = [
      (
        { pkgs, ... }:
        {
          runner.packages = [ pkgs.hello ];
          runner.sudo = true;
        }
      )
    ];
  };
  # What is said of each contains the line to change.
  bad = {
    "pools: add a pool" = {
      pools = lib.mkForce { };
    };
    "github: set exactly one of tokenFile" = {
      github.tokenFile = null;
    };
    "GitHub refuses version 2.334.0 of its runner" = {
      runner.package = pkgs.github-runner // {
        version = "2.334.0";
      };
    };
    "and app, to the id and the key's file of a GitHub App" = {
      github.app = {
        id = 12345;
        keyFile = "/run/secrets/app.pem";
      };
    };
    "github.app.keyFile: write it as a string that names a file outside the Nix store" = {
      github.tokenFile = lib.mkForce null;
      github.app = {
        id = "Iv23liExample";
        keyFile = "/nix/store/00000000000000000000000000000000-key";
      };
    };
    "github.tokenFile: write it as a string that names a file outside the Nix store" = {
      github.tokenFile = "/nix/store/00000000000000000000000000000000-token";
    };
    "apiTokenFile: write it as a string that names a file outside the Nix store" = {
      apiTokenFile = ./module-checks.nix;
      prometheus.enable = true;
    };
    "apiTokenFile: enable services.runner-controller.prometheus too" = {
      apiTokenFile = "/run/secrets/api";
    };
    "pools.big.offset: set it to 4" = {
      pools.big = {
        labels = [ "big" ];
        offset = 3;
        maxRunners = 2;
      };
    };
    "pools.ci: minIdle 4 and minSpare 2 do not fit; raise maxRunners to 6" = {
      pools.ci.minIdle = 4;
      pools.ci.minSpare = 2;
    };
    "pools.Big: rename the pool" = {
      pools.Big = {
        labels = [ "big" ];
        offset = 4;
        maxRunners = 2;
      };
    };
    "network.block: widen it; 10.0.0.0/29 has 2 places" = {
      network.block = "10.0.0.0/29";
    };
    "network.uidBase: set it to 524288" = {
      network.uidBase = 524289;
    };
    "pools.ci: set nix = true" = {
      pools.ci.substituters = [ "https://cache.example.org" ];
    };
    "pools.ci.layer.kind: set it to \"disk\"; Docker's storage on a tmpfs takes Linux 6.6" = {
      pools.ci.docker = true;
    };
    "remove either directory or modules" = {
      pools.ci.image = {
        directory = "/image";
        modules = [ { } ];
      };
    };
    "openMetricsFirewall: enable" = {
      openMetricsFirewall = true;
    };
  };

  wrongs =
    lib.concatLists (
      lib.mapAttrsToList (name: config: map (message: "${name}: ${message}") (failed config)) good
    )
    ++ lib.concatLists (
      lib.mapAttrsToList (
        wanted: settings:
        let
          said = refused settings;
        in
        lib.optional (!says wanted said) "nothing said: ${wanted}; but: ${toString said.host}"
      ) bad
    )
    ++ lib.optional (
      good.escape-hatch.services.runner-controller.settings.pools.ci.limits.open_files != 131072
    ) "settings do not win over options"
    ++ lib.optional (
      !lib.elem 9817 good.metrics.networking.firewall.allowedTCPPorts
    ) "the port stays shut"
    ++ lib.optional (lib.elem 9817 good.minimal.networking.firewall.allowedTCPPorts) "the port is open unasked";

  # Down to what would be built; without it, a pool's system is never looked at.
  systems = map (config: builtins.unsafeDiscardStringContext config.system.build.toplevel.drvPath) [
    good.two-pools
    good.docker
    good.extended
    good.nix
    good.directory
  ];
in
if wrongs != [ ] then
  throw (lib.concatLines ([ "the module:" ] ++ wrongs))
else
  pkgs.writeText "module-checks" (lib.concatLines systems)
