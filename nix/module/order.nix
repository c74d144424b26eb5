# Options for what all runners may take, and for the order of the jobs that wait.
{ lib }:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; }) duration size;
  patterns =
    example:
    mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ example ];
      description = "Patterns for a whole text, in any case, in which * stands for any characters.";
    };
  priority = {
    options = {
      name = mkOption {
        type = types.str;
        example = "release";
        description = "Name of the priority.";
      };
      repository = patterns "acme/*";
      workflow = patterns "Release*";
      job = patterns "deploy*";
      escalateAfter = mkOption {
        type = duration;
        example = "1m";
        description = "Time after which its jobs go before those of the priority above.";
      };
    };
  };
in
{
  mode = mkOption {
    type = types.enum [
      "run"
      "observe"
    ];
    default = "run";
    example = "observe";
    description = ''
      "observe" starts and registers no runner. The host shows which jobs wait and what it would do, beside
      the system that serves them until now.
    '';
  };

  budget = {
    memory = mkOption {
      type = types.nullOr size;
      default = null;
      example = "96 GiB";
      description = "Memory of the runners of all pools together, counted by `limits.memory`.";
    };
    cpu = mkOption {
      type = types.nullOr (types.either types.ints.positive types.float);
      default = null;
      example = 32;
      description = "Cores of the runners of all pools together, counted by `limits.cpu`.";
    };
    runners = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 24;
      description = "Number of the runners of all pools together.";
    };
  };

  queue = {
    fairnessAge = mkOption {
      type = types.nullOr duration;
      default = null;
      example = "2m";
      description = "Age from which all waiting jobs have their turns by age alone. The default is 5 min.";
    };
    reserveAfter = mkOption {
      type = types.nullOr duration;
      default = null;
      example = "30m";
      description = "Age from which a waiting job that does not fit the budget keeps the room that becomes free. The default is 1 h.";
    };
    maxPerRepository = mkOption {
      type = types.nullOr (types.ints.between 1 1000);
      default = null;
      example = 6;
      description = "Maximum number of runners for waiting and running jobs of one repository.";
    };
  };

  priority = mkOption {
    type = types.listOf (types.submodule priority);
    default = [ ];
    example = lib.literalExpression ''
      [
        {
          name = "release";
          workflow = [ "Release*" ];
          escalateAfter = "1m";
        }
      ]
    '';
    description = ''
      Priorities, the highest first. Their jobs go before others, until these are as old as
      `queue.fairnessAge`. `docs/demand.md` has the rules.
    '';
  };
}
