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

  minimal.services.runner-controller = {
    enable = true;
    github.url = lib.mkDefault "https://github.com/acme/widgets";
    github.tokenFile = lib.mkDefault "/run/secrets/token";
    network.resolvers = lib.mkDefault [ "9.9.9.9" ];
    pools.ci = {
      labels = lib.mkDefault [ "ci" ];
      maxRunners = 4;
    };
  };

  # Options of a host that the module reads.
  host = {
    boot.isContainer = lib.mkDefault false;
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
    system.stateVersion = "26.05";
    users.mutableUsers = lib.mkDefault true;
    users.users = { };
    virtualisation.docker.enable = lib.mkDefault false;
  };

  # A host whose pool `ci` has no image to evaluate, unless the case is about it.
  evaluate =
    withImages: case:
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
    ./module-checks/scope.nix
  ];
  refused = lib.mergeAttrsList (map (file: file.refused) files);
  warned = lib.mergeAttrsList (map (file: file.warned or { }) files);
  images = import ./module-checks/images.nix { inherit lib pkgs; };
  accepted = import ./module-checks/accepted.nix { inherit lib; };

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

  settingsOf = case: (evaluate false case).services.runner-controller.settings;
  imagesSay = said (evaluate true images.refused);
  imagesAccept = said (evaluate true images.accepted);

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
        { services.runner-controller = accepted.whole; }
      ];
    }).config;

  wrongs =
    lib.concatLists (lib.mapAttrsToList accepts accepted.settings)
    ++ lib.concatLists (lib.mapAttrsToList refuses refused)
    ++ lib.concatLists (lib.mapAttrsToList warns warned)
    ++ lib.concatMap (
      wanted:
      lib.optional (saysNot wanted imagesSay)
        "no image is refused by `${wanted}`; failed: ${lib.concatStringsSep " | " imagesSay}"
    ) images.messages
    ++ map (message: "a good image is refused: ${message}") imagesAccept
    ++ map (message: "the whole host: ${message}") (said whole)
    ++ lib.optional (
      (settingsOf accepted.settings.escape-hatch).pools.ci.limits.open_files != 131072
    ) "settings do not override options"
    ++ lib.optional (
      !lib.elem 9817 whole.networking.firewall.allowedTCPPorts
    ) "openMetricsFirewall does not open the port"
    ++
      lib.optional
        (lib.elem 9817
          inputs.self.nixosConfigurations.runner-01.config.networking.firewall.allowedTCPPorts
        )
        "the port is open without openMetricsFirewall";
in
if wrongs != [ ] then
  throw (lib.concatLines ([ "the module:" ] ++ wrongs))
else
  pkgs.writeText "module-checks" (
    builtins.unsafeDiscardStringContext whole.system.build.toplevel.drvPath
  )
