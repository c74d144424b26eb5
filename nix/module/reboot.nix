# Unattended reboots into a new kernel. A reboot ends every job, so it waits for them.
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
        unattended reboots. If the deployed kernel, initrd or systemd is not the booted one, the host is
        drained, rebooted, and takes jobs again. This ends no job
      ''
    );

    schedule = mkOption {
      type = types.str;
      default = "Sun 03:30";
      description = "Time of the check, in the notation of `systemd.time(7)`. Use a different time for each host.";
    };

    patience = mkOption {
      type = duration;
      default = "6h";
      description = ''
        Longest wait for running jobs. The host takes no new ones meanwhile. Afterwards it takes jobs
        again, and the reboot waits for the next check.
      '';
    };
  };

  config = lib.mkIf (cfg.enable && reboot.enable) {
    systemd.services.runner-controller-reboot = {
      description = "Reboot into the deployed system once no job runs";
      after = [ "runner-controller.service" ];
      startAt = reboot.schedule;
      restartIfChanged = false;
      serviceConfig = {
        Type = "oneshot";
        ExecStart = utils.escapeSystemdExecArgs [
          (lib.getExe script)
          "/run/booted-system"
          "/nix/var/nix/profiles/system"
          reboot.patience
        ];
      };
    };
  };
}
