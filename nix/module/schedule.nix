# Options of one entry of a pool's schedule.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  number =
    least: what:
    mkOption {
      type = types.nullOr (types.ints.between least 999);
      default = null;
      example = 4;
      description = "${what} during these hours; that of the pool if it is null.";
    };
in
{
  options = {
    days = mkOption {
      type = types.nonEmptyListOf (
        types.enum [
          "mon"
          "tue"
          "wed"
          "thu"
          "fri"
          "sat"
          "sun"
        ]
      );
      default = [
        "mon"
        "tue"
        "wed"
        "thu"
        "fri"
        "sat"
        "sun"
      ];
      example = [
        "sat"
        "sun"
      ];
      description = "Days on which the hours begin.";
    };
    hours = mkOption {
      type =
        types.strMatching "([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)"
        // {
          description = ''beginning and end, such as "08:00-18:00"'';
        };
      default = "00:00-24:00";
      example = "22:00-06:00";
      description = "The hours. An end that is not after the beginning is on the next day.";
    };
    timeZone = mkOption {
      type = types.str;
      example = "Europe/Berlin";
      description = "Time zone of days and hours: a name of the IANA database, or \"UTC\".";
    };
    minIdle = number 0 "Number of runners that listen";
    minSpare = number 0 "Number of spares";
    maxRunners = number 0 "Maximum number of containers, not above that of the pool,";
  };
}
