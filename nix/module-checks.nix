# The module, evaluated with good and bad settings. Good ones fail no assertion, and bad ones fail the
# one that names the line to change.
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
  failed = config: map (entry: entry.message) (lib.filter (entry: !entry.assertion) config.assertions);

  # Returns the failed assertions of the module and of its containers. They are evaluated without a host,
  # which would take half a gigabyte for each.
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
                boot.kernelPackages.kernel.version = "6.8.12";
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
  # A container is evaluated only if the host fails no such assertion.
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
  # Part of the message for each mistake; the message contains the line to change.
  bad = {
    "pools: add a pool" = {
      pools = lib.mkForce { };
    };
    "github: set exactly one of tokenFile and app" = {
      github.tokenFile = null;
    };
    "GitHub refuses version 2.334.0 of its runner" = {
      runner.package = pkgs.github-runner // {
        version = "2.334.0";
      };
    };
    "or app to the id and the key's file of a GitHub App" = {
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
    "network.block: widen it: 10.0.0.0/29 has 2 places" = {
      network.block = "10.0.0.0/29";
    };
    "network.uidBase: set it to 524288" = {
      network.uidBase = 524289;
    };
    "pools.ci: set nix = true" = {
      pools.ci.substituters = [ "https://cache.example.org" ];
    };
    "boot.kernelPackages: use Linux 6.9 or later instead of 6.8.12" = { };
    "remove directory or modules" = {
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
        lib.optional (!says wanted said) "no assertion says: ${wanted}; failed: ${toString said.host}"
      ) bad
    )
    ++ lib.optional (
      good.escape-hatch.services.runner-controller.settings.pools.ci.limits.open_files != 131072
    ) "settings do not override options"
    ++ lib.optional (
      !lib.elem 9817 good.metrics.networking.firewall.allowedTCPPorts
    ) "openMetricsFirewall does not open the port"
    ++ lib.optional (lib.elem 9817 good.minimal.networking.firewall.allowedTCPPorts) "the port is open without openMetricsFirewall";

  # Evaluated to the derivation, because a pool's system is not evaluated otherwise.
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
