# Files of the host: units, slices, firewall, polkit rule, directories, kernel settings.
#
# The program renders all of them for every kind of host (`runner-controller units`). This file builds that
# output from the configuration and installs it, so that the module cannot differ from the program. NixOS
# adds drop-ins, which say where programs are and what a switch restarts. Evaluation cannot read the
# output of a build, so host-files.json records the names of the files. A test of the program checks the
# record, and the build below fails if it is wrong.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  cfg = config.services.runner-controller;
  recorded = lib.importJSON ./host-files.json;

  perPool = name: map (pool: lib.replaceStrings [ "POOL" ] [ pool ] name) (lib.attrNames cfg.pools);
  expand = name: if lib.hasInfix "POOL" name then perPool name else [ name ];
  units = lib.listToAttrs (
    lib.concatLists (
      lib.mapAttrsToList (
        name: wantedBy: map (unit: lib.nameValuePair unit wantedBy) (expand name)
      ) recorded.units
    )
  );
  isService = lib.hasSuffix ".service";
  services = lib.mapAttrs' (
    name: wantedBy: lib.nameValuePair (lib.removeSuffix ".service" name) wantedBy
  ) (lib.filterAttrs (name: _: isService name) units);
  others = lib.filterAttrs (
    name: wantedBy: !isService name && (wantedBy != [ ] || lib.hasSuffix ".slice" name)
  ) units;

  configFile = (pkgs.formats.toml { }).generate "runner-controller.toml" cfg.settings;

  hostFiles =
    pkgs.runCommand "runner-controller-host-files"
      {
        nativeBuildInputs = [ cfg.package ];
        expected = lib.concatLines (lib.attrNames units);
        passAsFile = [ "expected" ];
        preferLocalBuild = true;
      }
      ''
        runner-controller check-config ${configFile}
        runner-controller --config ${configFile} units \
          --binary ${lib.getExe cfg.package} --install-root root

        ls root/etc/systemd/system | LC_ALL=C sort > rendered
        LC_ALL=C sort "$expectedPath" | diff - rendered || {
          echo "nix/module/host-files.json does not name the units that the program renders; run: RECORD=1 cargo test --package runner-controller --test nixos" >&2
          exit 1
        }
        for link in root${cfg.package}/bin/*; do
          test -e "${cfg.package}/bin/''${link##*/}" || {
            echo "the package lacks the command ''${link##*/}" >&2
            exit 1
          }
        done

        mkdir -p "$out/lib/systemd"
        cp -r root/etc "$out/etc"
        mv "$out/etc/systemd/system" "$out/lib/systemd/system"
        mv "$out/etc/tmpfiles.d" "$out/lib/tmpfiles.d"
        # NixOS creates users by itself.
        rm -r "$out/etc/sysusers.d"
      '';

  # Every unit's path already has systemd, coreutils and the like.
  programs = [
    pkgs.e2fsprogs
    pkgs.nftables
    pkgs.util-linux
  ];
  searchPath = lib.makeBinPath (
    programs
    ++ [
      config.systemd.package
      pkgs.coreutils
    ]
  );

  # Only runners have template units.
  isTemplate = lib.hasSuffix "@";

  service = name: wantedBy: {
    overrideStrategy = "asDropin";
    inherit wantedBy;
    path = programs;
    # For command lines that name a program without its path.
    serviceConfig.ExecSearchPath = searchPath;
    # A deploy does not touch a runner. The next one in the slot starts from the new unit.
    restartIfChanged = lib.mkIf (isTemplate name) false;
    unitConfig.X-StopOnRemoval = lib.mkIf (isTemplate name) false;
  };

  # agenix does not restart a service when its secret changes.
  tokens = [
    cfg.github.tokenFile
    (cfg.github.app.keyFile or null)
    (cfg.github.proxy.credentialsFile or null)
    cfg.apiTokenFile
  ];
  secrets = lib.optionals (options ? age) (
    map (secret: secret.file) (
      lib.filter (secret: lib.elem secret.path tokens) (lib.attrValues config.age.secrets)
    )
  );
in
{
  config = lib.mkIf cfg.enable {
    services.runner-controller.build = {
      inherit configFile hostFiles units;
    };

    environment.systemPackages = [ cfg.package ];
    environment.etc = {
      # For operators. Units refer to the store path, so that a runner ends under the rules it began with.
      "runner-controller/config.toml".source = configFile;
    }
    // lib.listToAttrs (
      map (
        path: lib.nameValuePair (lib.removePrefix "/etc/" path) { source = "${hostFiles}${path}"; }
      ) recorded.etc
    );

    systemd.packages = [ hostFiles ];
    systemd.tmpfiles.packages = [ hostFiles ];
    systemd.units = lib.mapAttrs (name: wantedBy: {
      overrideStrategy = "asDropin";
      inherit wantedBy;
      # A stopped slice ends all runners in it. Runners of a removed pool must end by themselves.
      text = lib.optionalString (lib.hasSuffix ".slice" name) ''
        [Unit]
        X-StopOnRemoval=false
      '';
    }) others;
    systemd.services = lib.mkMerge [
      (lib.mapAttrs service services)
      {
        runner-controller = {
          # A restart in one step keeps the slots' sockets and waiting connections in systemd's file
          # descriptor store, and the next daemon adopts all runners.
          stopIfChanged = false;
          restartTriggers = secrets;
        };
        # The table stays loaded while its owner restarts. The restart is one step, because a switch must
        # not stop the owner before the new configuration is in place.
        runner-controller-firewall = {
          stopIfChanged = false;
          restartTriggers = [ configFile ];
        };
        systemd-sysctl.restartTriggers = [ "${hostFiles}/etc/sysctl.d" ];
        systemd-modules-load.restartTriggers = [ "${hostFiles}/etc/modules-load.d" ];
        polkit.reloadTriggers = [ "${hostFiles}/etc/polkit-1/rules.d" ];
      }
    ];

    # Every user of the host can read the store, so a build that would put a token there fails.
    system.checks = [
      (pkgs.runCommand "no-plain-tokens" { } ''
        for tree in ${config.system.build.etc}/etc ${config.system.build.etc}/etc/systemd/system; do
          bash ${../../secrets/check.sh} --tree "$tree"
        done
        touch "$out"
      '')
    ];

    users.users.runner-controller = {
      isSystemUser = true;
      group = "runner-controller";
      description = "Runner controller";
    };
    users.groups.runner-controller.members = cfg.operators;

    security.polkit.enable = true;

    # Other network managers must not configure the runners' links. The host files say so to systemd-networkd
    # and NetworkManager; dhcpcd has no directory of settings.
    networking.dhcpcd.denyInterfaces = [ "rc-*" ];
    # A host that forwards nothing by default would stop the runners too. Their own table decides which
    # destinations they reach.
    networking.firewall = {
      extraForwardRules = lib.mkIf config.networking.firewall.filterForward ''
        iifname "rc-*" accept
        oifname "rc-*" ct state established,related accept
      '';
      allowedTCPPorts = lib.mkIf cfg.openMetricsFirewall [ cfg.prometheus.port ];
    };

    services.prometheus.scrapeConfigs =
      lib.mkIf (cfg.prometheus.enable && config.services.prometheus.enable)
        [
          {
            job_name = "runner-controller";
            static_configs = [ { targets = [ cfg.prometheus.target ]; } ];
          }
        ];
  };
}
