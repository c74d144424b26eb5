# Automatic Boot Assessment (https://systemd.io/AUTOMATIC_BOOT_ASSESSMENT/): a new system is good once its
# runners wait for jobs. Otherwise the host boots an earlier one.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (import ./types.nix { inherit lib; }) duration;
  cfg = config.services.runner-controller;
  check = cfg.bootCheck;
  loader = config.boot.loader.systemd-boot;
in
{
  options.services.runner-controller.bootCheck = {
    enable = lib.mkEnableOption (
      lib.trim ''
        a check of each first boot of a system. If its runners do not wait for jobs in time, the host reboots. After
        `boot.loader.systemd-boot.bootCounting.tries` such boots it boots the system before. An outage of GitHub of
        that length has the same effect. Later boots of a good system are not checked
      ''
    );

    patience = lib.mkOption {
      type = duration;
      default = "15m";
      description = "Longest wait of one boot until runners wait for jobs.";
    };
  };

  config = lib.mkIf (cfg.enable && check.enable) {
    assertions = [
      {
        assertion = loader.enable or false && loader.bootCounting.enable or false;
        message = "services.runner-controller.bootCheck: set boot.loader.systemd-boot.bootCounting.enable = true, or remove bootCheck, because only systemd-boot with boot counting chooses an earlier system. NixOS has the option since 26.11.";
      }
    ];
    systemd.services.runner-controller-boot-check = {
      description = "Wait until runners wait for jobs, so that this boot is good";
      requiredBy = [ "boot-complete.target" ];
      before = [ "boot-complete.target" ];
      after = [ "runner-controller.service" ];
      restartIfChanged = false;
      unitConfig = {
        # Only while systemd-boot counts the boots of this system.
        ConditionPathExists = "/sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
        FailureAction = "reboot";
      };
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        TimeoutStartSec = "infinity";
        # A switch also starts what active targets require, and must not reboot the host.
        ExecCondition = "${pkgs.runtimeShell} -c 'test \"$(${config.systemd.package}/bin/systemctl is-system-running)\" = starting'";
        ExecStart = "${cfg.package}/bin/runner-status --wait ${lib.replaceStrings [ " " ] [ "" ] check.patience}";
      };
    };
  };
}
