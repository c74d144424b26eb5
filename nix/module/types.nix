# Types of values in the notation of the configuration file. Each pattern has a description.
{ lib }:
let
  inherit (lib) types;
  described = description: type: type // { inherit description; };
in
{
  # A path without quotes would be copied to the store, with everything below it.
  absolutePath = described "absolute path, as a string" (
    types.addCheck types.path (path: !builtins.isPath path)
  );
  appId = described "client id of a GitHub App, 1 to 64 letters, digits and dots" (
    types.strMatching "[A-Za-z0-9.]{1,64}"
  );
  date = described ''date, such as "2022-11-28"'' (
    types.strMatching "[0-9]{4}-[0-9]{2}-[0-9]{2}"
  );
  duration = described ''duration with its unit, such as "90s" or "2h 30m"'' (
    types.strMatching "[0-9]+[a-z]+( ?[0-9]+[a-z]+)*"
  );
  # Every user of the host can read the store. A path without quotes would be copied there.
  secretFile = described "absolute path of a file outside the Nix store, as a string" types.externalPath;
  size = described ''size with its unit, such as "6 GiB"'' (
    types.strMatching "[0-9]+(\\.[0-9]+)? ?[KMGT]i?B"
  );
}
