# Parts of the host: units, users, kernel settings and firewall.
#
# rendered.nix has the files, and this file installs them. NixOS adds drop-ins, which say where programs are
# and what a switch restarts.
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
  inherit (cfg.build) configFile hostFiles units;

  isService = lib.hasSuffix ".service";
  services = lib.mapAttrs' (
    name: wantedBy: lib.nameValuePair (lib.removeSuffix ".service" name) wantedBy
  ) (lib.filterAttrs (name: _: isService name) units);
  others = lib.filterAttrs (
    name: wantedBy: !isService name && (wantedBy != [ ] || lib.hasSuffix ".slice" name)
  ) units;

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
    cfg.apiTokenFile
    (cfg.webhook.secretFile or null)
    (cfg.webhook.nextSecretFile or null)
    (cfg.settings.traces.headers_file or null)
  ]
  ++ lib.concatMap (scope: [
    scope.given.tokenFile
    (scope.given.app.keyFile or null)
    (scope.given.proxy.credentialsFile or null)
  ]) (import ./scopes.nix { inherit cfg lib; });
  secrets = lib.optionals (options ? age) (
    map (secret: secret.file) (
      lib.filter (secret: lib.elem secret.path tokens) (lib.attrValues config.age.secrets)
    )
  );
in
{
  config = lib.mkIf cfg.enable {
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
    system.checks = lib.optionals cfg.refuseTokensInEtc [
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
      allowedTCPPorts = lib.mkIf cfg.prometheus.openFirewall [ cfg.prometheus.port ];
    };

    services.prometheus.scrapeConfigs =
      lib.mkIf (cfg.prometheus.enable && config.services.prometheus.enable)
        [
          {
            job_name = "runner-controller";
            static_configs = [ { targets = [ cfg.prometheus.target ]; } ];
          }
        ];

    services.prometheus.ruleFiles =
      lib.mkIf (cfg.prometheus.enable && cfg.prometheus.alerts && config.services.prometheus.enable)
        [ ../../monitoring/alerts.yml ];

    services.grafana.provision =
      lib.mkIf (cfg.prometheus.enable && cfg.prometheus.dashboard && config.services.grafana.enable)
        {
          enable = true;
          dashboards.settings.providers = [
            {
              name = "runner-controller";
              options.path = ../../monitoring/dashboards;
            }
          ];
        };
  };
}
