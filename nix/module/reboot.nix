# A host gets a new kernel by a reboot, and a reboot ends every job. So it waits for them.
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; }) duration;
  cfg = config.services.runner-controller;
  reboot = cfg.rebootWhenDrained;

  # Says that a drain was ours, and no operator's.
  mark = "/var/lib/runner-controller-reboot/drained";

  script = pkgs.writeShellApplication {
    name = "runner-controller-reboot";
    runtimeInputs = [
      cfg.package
      config.systemd.package
      pkgs.coreutils
      pkgs.jq
    ];
    text = builtins.readFile ./reboot.sh;
  };
in
{
  options.services.runner-controller.rebootWhenDrained = {
    enable = lib.mkEnableOption (
      lib.trim ''
        unattended reboots: if the deployed kernel, initrd or systemd is not the booted one, the host is
        drained, rebooted, and takes jobs again. No job is ended for it
      ''
    );

    schedule = mkOption {
      type = types.str;
      default = "Sun 03:30";
      description = "When to look, as `systemd.time(7)` writes it. Give each host its own time.";
    };

    patience = mkOption {
      type = duration;
      default = "6h";
      description = ''
        How long to wait for jobs, during which the host takes no new ones. Afterwards it takes
        jobs again, and the reboot waits for the next time.
      '';
    };
  };

  config = lib.mkIf (cfg.enable && reboot.enable) {
    systemd.services = {
      runner-controller-reboot = {
        description = "Reboot into the deployed system, once no job runs";
        after = [ "runner-controller.service" ];
        startAt = reboot.schedule;
        restartIfChanged = false;
        serviceConfig = {
          Type = "oneshot";
          ExecStart = utils.escapeSystemdExecArgs [
            (lib.getExe script)
            "/run/booted-system"
            "/nix/var/nix/profiles/system"
            mark
            reboot.patience
          ];
          StateDirectory = "runner-controller-reboot";
        };
      };
      runner-controller-undrain = {
        description = "Take jobs again after an unattended reboot";
        wantedBy = [ "multi-user.target" ];
        after = [ "runner-controller.service" ];
        unitConfig.ConditionPathExists = mark;
        serviceConfig = {
          Type = "oneshot";
          ExecStart = "${lib.getExe cfg.package} undrain";
          ExecStartPost = utils.escapeSystemdExecArgs [
            (lib.getExe' pkgs.coreutils "rm")
            mark
          ];
        };
      };
    };
  };
}
