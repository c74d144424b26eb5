# Versions of its runner that GitHub accepts, from the table in docs/runner-versions.md.
{ lib }:
let
  text = builtins.readFile ../docs/runner-versions.md;
  cells = line: map lib.trim (lib.splitString "|" line);
  row = line: {
    version = lib.elemAt (cells line) 1;
    released = lib.elemAt (cells line) 2;
    refused = lib.elemAt (cells line) 3;
  };

  # Returns the number of days from 1970 to a date, `YYYY-MM-DD`. The year begins in March, so that a leap
  # day is its last.
  daysOf =
    date:
    let
      parts = map lib.toIntBase10 (lib.splitString "-" date);
      month = lib.elemAt parts 1;
      isLate = month > 2;
      year = lib.head parts - (if isLate then 0 else 1);
      day = (153 * (month + (if isLate then (-3) else 9)) + 2) / 5 + lib.last parts;
    in
    365 * year + year / 4 - year / 100 + year / 400 + day - 719469;

  # Returns the oldest version that GitHub was not seen to refuse, and the oldest whose next release is at
  # most 30 days old.
  oldest =
    rows: today:
    let
      pairs = lib.zipLists rows (lib.tail rows);
      after =
        isOver: lib.foldl' (best: pair: if isOver pair then pair.snd else best) (lib.head rows) pairs;
    in
    {
      notRefused = (after (pair: pair.fst.refused != "")).version;
      inTime = (after (pair: daysOf pair.snd.released + 30 < today)).version;
    };

  rows = map row (lib.filter (lib.hasPrefix "| 2.") (lib.splitString "\n" text));
  recorded = daysOf (
    lib.head (
      lib.findFirst builtins.isList (throw "docs/runner-versions.md: write the line `Recorded on DATE.`") (
        builtins.split "Recorded on ([0-9-]+)[.]" text
      )
    )
  );
  # Pure evaluation has no clock.
  today = if builtins ? currentTime then builtins.currentTime / 86400 else recorded;
in
{
  inherit daysOf oldest rows;
  minimum = (oldest rows today).notRefused;
  inherit (oldest rows today) inTime;

  # Returns a warning if an input is more than 25 days older than the configuration. Both are in seconds, such
  # as `inputs.nixpkgs-runner.lastModified` and `inputs.self.lastModified`.
  ageWarnings =
    { input, configuration }:
    lib.optional (configuration - input > 25 * 86400) ''
      nixpkgs-runner is ${toString ((configuration - input) / 86400)} days older than this configuration, and GitHub refuses
      runners that are some weeks old. Run `nix flake update nixpkgs-runner`.
    '';
}
