# The module, evaluated with good and bad settings. Good ones fail no assertion, and bad ones fail the
# one that names the line to change.
#
# Settings are evaluated without a host, which would take half a gigabyte for each. One whole host and one
# image have what only they can show.
{
  inputs,
  pkgs,
  system,
}:
let
  inherit (inputs.nixpkgs) lib;

  minimal =
    { config, ... }:
    {
      services.runner-controller = withoutScope // {
        github = lib.mkIf (config.services.runner-controller.scopes == { }) {
          url = lib.mkDefault "https://github.com/acme/widgets";
          tokenFile = lib.mkDefault "/run/secrets/token";
        };
      };
    };
  withoutScope = {
    enable = true;
    network.resolvers = lib.mkDefault [ "9.9.9.9" ];
    pools.ci = {
      labels = lib.mkDefault [ "ci" ];
      maxRunners = lib.mkDefault 4;
    };
  };

  # Options of a host that the module reads.
  host = {
    boot.isContainer = lib.mkDefault false;
    boot.loader.systemd-boot = { };
    boot.kernelPackages.kernel.version = lib.mkDefault "6.12.1";
    containers = { };
    fileSystems."/" = {
      device = lib.mkDefault "/dev/disk/by-label/root";
      fsType = lib.mkDefault "xfs";
    };
    networking = {
      hostName = lib.mkDefault "box";
      interfaces = { };
      nftables.enable = lib.mkDefault false;
    };
    systemd.network.networks = { };
    systemd.package.version = lib.mkDefault "260.2";
    system.nixos.release = lib.mkDefault "26.05";
    system.stateVersion = "26.05";
    users.mutableUsers = lib.mkDefault true;
    users.users = { };
    virtualisation.docker.enable = lib.mkDefault false;
  };

  # A host whose pool `ci` has no image to evaluate, unless the case is about it.
  evaluate = evaluateWith pkgs;
  evaluateWith =
    pkgs: withImages: case:
    (lib.evalModules {
      specialArgs = {
        inherit pkgs;
        # Used only by a unit that is not evaluated.
        utils = { };
      };
      modules = [
        ./module/options.nix
        ./module/settings.nix
        ./module/images.nix
        ./module/reboot.nix
        ./module/boot-check.nix
        ./module/assertions
        {
          options = lib.genAttrs [ "assertions" "warnings" ] (
            _: lib.mkOption { type = lib.types.listOf lib.types.unspecified; }
          );
          config._module.freeformType = lib.types.lazyAttrsOf lib.types.anything;
        }
        host
        minimal
        {
          services.runner-controller.pools.ci.image.directory = lib.mkIf (!withImages) (
            lib.mkDefault "/image"
          );
        }
        case
      ];
    }).config;
  said =
    config: map (entry: entry.message) (lib.filter (entry: !entry.assertion) config.assertions);
  saysNot = wanted: messages: !lib.any (lib.hasInfix wanted) messages;

  files = map (file: import file { inherit lib; }) [
    ./module-checks/host.nix
    ./module-checks/network.nix
    ./module-checks/pools.nix
    ./module-checks/proxy.nix
    ./module-checks/scope.nix
    ./module-checks/shared.nix
  ];
  refused = lib.mergeAttrsList (map (file: file.refused) files);
  warned = lib.mergeAttrsList (map (file: file.warned or { }) files) // images.warned;
  images = import ./module-checks/images.nix { inherit lib pkgs; };
  accepted = import ./module-checks/accepted.nix { inherit lib; };
  types = import ./module-checks/types.nix { inherit lib; };

  # Returns a sentence unless a case is refused with this message, and with no other.
  refuses =
    wanted: case:
    let
      messages = said (evaluate false case);
    in
    lib.optional (
      saysNot wanted messages || lib.length messages != 1
    ) "not refused by `${wanted}` alone; failed: ${lib.concatStringsSep " | " messages}";
  warns =
    wanted: case:
    let
      config = evaluate false case;
    in
    lib.optional (saysNot wanted config.warnings || said config != [ ])
      "no warning `${wanted}`; warned: ${toString config.warnings}; failed: ${toString (said config)}";
  accepts =
    name: case:
    let
      config = evaluate false case;
    in
    lib.optional (said config != [ ] || config.warnings != [ ])
      "${name}: ${lib.concatStringsSep " | " (said config ++ config.warnings)}";

  # Returns a sentence for each value that an option's type refuses or takes wrongly.
  typed =
    option: values:
    let
      path = lib.splitString "." option;
      takes =
        value:
        (builtins.tryEval (
          builtins.deepSeq (lib.getAttrFromPath path
            (evaluate false {
              services.runner-controller = lib.setAttrByPath path (lib.mkForce value);
            }).services.runner-controller
          ) true
        )).success;
      say = verb: value: "${option}: its type ${verb} ${builtins.toJSON value}";
    in
    map (say "refuses") (lib.filter (value: !takes value) values.accepted)
    ++ map (say "takes") (lib.filter takes values.refused);

  # A host of another architecture than the machine that builds it.
  otherPkgs =
    if system == "x86_64-linux" then pkgs.pkgsCross.aarch64-multiplatform else pkgs.pkgsCross.gnu64;
  crossed = (evaluateWith otherPkgs false ./module/rendered.nix).services.runner-controller;
  renderers = map (input: input.stdenv.hostPlatform.system) crossed.build.hostFiles.nativeBuildInputs;

  settingsOf = case: (evaluate false case).services.runner-controller.settings;
  imagesSay = said (evaluate true images.refused);
  good = evaluate true images.accepted;
  imagesAccept = said good;
  imageStarts = import ./container-units.nix {
    inherit lib;
    inherit (good.services.runner-controller.build.containers.ci) config;
  };
  furtherUnit = unit: "a container starts ${unit}; add it to masked in nix/container.nix, or to starts in nix/module-checks/images.nix";
  missingUnit = unit: "a container does not start ${unit}; remove it from starts in nix/module-checks/images.nix";

  # Returns a sentence unless a snippet of the documents is accepted and gives these values.
  snippets = import ./snippets.nix { inherit inputs lib system; };
  snippet =
    name:
    {
      beside ? { },
      gives,
    }:
    let
      case = {
        imports = [
          snippets.stubs
          (./snippets + "/${name}.nix")
        ];
        services.runner-controller = lib.mkMerge [
          {
            # The images are not evaluated.
            build.containers = lib.mkForce (
              lib.genAttrs [ "bench" "ci" ] (_: {
                config.assertions = [ ];
                config.system.build.toplevel = pkgs.emptyDirectory;
              })
            );
            pools.ci.image.directory = lib.mkForce null;
            runner.package = pkgs.github-runner // {
              version = versions.inTime;
            };
          }
          beside
        ];
      };
      inherit ((evaluate false case).services.runner-controller) settings;
      differs = lib.filterAttrs (
        path: value: lib.attrByPath (lib.splitString "." path) null settings != value
      ) gives;
    in
    accepts "snippet ${name}" case
    ++ lib.optional (
      differs != { }
    ) "the snippet ${name} does not give ${builtins.toJSON differs}";

  # Versions of the runner by a small table: the second was refused, and the fourth came 31 days after
  # the third.
  versions = import ./runner-versions.nix { inherit lib; };
  table =
    map
      (entry: {
        version = lib.elemAt entry 0;
        released = lib.elemAt entry 1;
        refused = lib.elemAt entry 2;
      })
      [
        [
          "2.1.0"
          "2027-12-01"
          ""
        ]
        [
          "2.2.0"
          "2028-01-01"
          "2028-03-01"
        ]
        [
          "2.3.0"
          "2028-01-29"
          ""
        ]
        [
          "2.4.0"
          "2028-02-29"
          ""
        ]
      ];
  # Versions that are in time on a day. 2028 is a leap year.
  inTime = day: (versions.oldest table (versions.daysOf day)).inTime;
  dates = map (row: versions.daysOf row.released) versions.rows;

  # A host with most of what the module can do.
  whole =
    (lib.nixosSystem {
      modules = [
        inputs.self.nixosModules.default
        {
          nixpkgs.hostPlatform = system;
          nixpkgs.pkgs = pkgs;
          networking.hostName = "box";
          boot.loader.grub.enable = false;
          fileSystems."/".device = "/dev/disk/by-label/root";
          fileSystems."/".fsType = "xfs";
          system.stateVersion = "26.05";
        }
        minimal
        {
          services.runner-controller = accepted.whole;
          services.grafana.enable = true;
          services.grafana.settings.security.secret_key = "$__file{/run/secrets/grafana}";
          security.acme.acceptTerms = true;
          security.acme.defaults.email = "ops@example.org";
        }
      ]
      ++ snippets.ofNixpkgs;
    }).config;

  wrongs =
    lib.concatLists (lib.mapAttrsToList accepts accepted.settings)
    ++ lib.concatLists (lib.mapAttrsToList refuses refused)
    ++ lib.concatLists (lib.mapAttrsToList warns warned)
    ++ lib.concatLists (lib.mapAttrsToList typed types)
    ++ lib.concatLists (lib.mapAttrsToList snippet snippets.modules)
    ++ snippets.wrong
    ++ lib.concatMap (
      wanted:
      lib.optional (saysNot wanted imagesSay)
        "no image is refused by `${wanted}`; failed: ${lib.concatStringsSep " | " imagesSay}"
    ) images.messages
    ++ map (message: "a good image is refused: ${message}") imagesAccept
    ++ map furtherUnit (lib.subtractLists images.starts imageStarts)
    ++ map missingUnit (lib.subtractLists imageStarts images.starts)
    ++ map (message: "the whole host: ${message}") (said whole)
    ++ lib.optional (
      versions.daysOf "1970-01-01" != 0 || versions.daysOf "2028-03-01" - versions.daysOf "2028-02-28" != 2
    ) "days are not counted from 1970 with leap days"
    ++ lib.optional (
      (versions.oldest table 0).notRefused != "2.3.0"
    ) "the oldest version is not the one after the last that was refused"
    ++ lib.optional (
      map inTime [
        "2028-01-31"
        "2028-02-01"
        "2028-02-28"
        "2028-02-29"
        "2028-03-30"
        "2028-03-31"
      ] != [
        "2.1.0"
        "2.2.0"
        "2.2.0"
        "2.3.0"
        "2.3.0"
        "2.4.0"
      ]
    ) "a version is not in time for 30 days after the next release"
    ++ lib.optional (
      lib.length dates < 2 || lib.sort builtins.lessThan dates != dates
    ) "docs/runner-versions.md does not have the versions by their dates"
    ++ lib.optional (
      versions.ageWarnings {
        input = 0;
        configuration = 25 * 86400;
      } != [ ]
      ||
        !lib.hasInfix "26 days older" (
          toString (
            versions.ageWarnings {
              input = 0;
              configuration = 26 * 86400;
            }
          )
        )
    ) "the age of the runner's input is not told after 25 days"
    ++ lib.optional (
      (settingsOf accepted.settings.escape-hatch).pools.ci.limits.open_files != 131072
    ) "settings do not override options"
    ++ lib.optional (
      renderers != [ system ] || crossed.package.stdenv.hostPlatform.system == system
    ) "the host files of a cross build are rendered by ${toString renderers}"
    ++ lib.optional (
      !lib.elem 9817 whole.networking.firewall.allowedTCPPorts
    ) "prometheus.openFirewall does not open the port"
    ++ lib.optional (
      map (provider: provider.name) whole.services.grafana.provision.dashboards.settings.providers != [
        "runner-controller"
      ]
    ) "a Grafana on the host lacks the dashboard"
    ++ lib.optional (
      lib.subtractLists whole.networking.firewall.allowedTCPPorts [
        80
        443
      ] != [ ]
    ) "webhook.nginx.openFirewall does not open the ports"
    ++ lib.optional (
      let
        host = whole.services.nginx.virtualHosts."runners.example.org";
      in
      !(whole.services.nginx.enable && host.enableACME && host.forceSSL)
      || host.locations."= /webhook".proxyPass != "http://127.0.0.1:9818"
      || host.locations."/".return != "404"
    ) "webhook.nginx does not pass deliveries on"
    ++
      lib.optional
        (lib.elem 9817
          inputs.self.nixosConfigurations.runner-01.config.networking.firewall.allowedTCPPorts
        )
        "the port is open without prometheus.openFirewall";
in
if wrongs != [ ] then
  throw (lib.concatLines ([ "the module:" ] ++ wrongs))
else
  pkgs.writeText "module-checks" (
    builtins.unsafeDiscardStringContext whole.system.build.toplevel.drvPath
  )
