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

  # Calendar events of systemd.time(7): weekdays, date, time and time zone, each optional. The
  # days of a month and the name of the zone are left to systemd.
  isSchedule =
    let
      words = "minutely|hourly|daily|monthly|weekly|yearly|annually|quarterly|semiannually";
      weekday = "(mon(day)?|tue(s|sday)?|wed(nesday)?|thu(r|rs|rsday)?|fri(day)?|sat(urday)?|sun(day)?)";
      weekdays = "${weekday}((,|\\.\\.|-)${weekday})*,?";
      list =
        number:
        let
          value = "${number}(\\.\\.${number})?(/[0-9]+)?";
        in
        "(\\*(/[0-9]+)?|${value}(,${value})*)";
      number = list "[0-9]+";
      sixty = "[0-5]?[0-9]";
      date = "(${number}-)?${number}[-~]${number}";
      time = "${list "([01]?[0-9]|2[0-3])"}:${list sixty}(:${list "${sixty}(\\.[0-9]+)?"})?";
      zone = "[a-z][a-z0-9_/+-]*";
      event = "(${words}|${weekdays}|(${weekdays} +)?${date}|(${weekdays} +)?(${date} +)?${time})( +${zone})?";
    in
    text: builtins.match " *${event} *" (lib.toLower text) != null;

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
    assertions = [
      {
        assertion = isSchedule reboot.schedule;
        message = "services.runner-controller.rebootWhenDrained.schedule: write it in the notation of systemd.time(7), such as \"Sun 03:30\", because systemd does not parse \"${reboot.schedule}\".";
      }
    ];
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
