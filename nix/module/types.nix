# Types of values in the notation of the configuration file.
{ lib }:
{
  duration = lib.types.strMatching "[0-9]+[a-z]+( ?[0-9]+[a-z]+)*" // {
    description = ''duration with its unit, such as "90s" or "2h 30m"'';
  };
  size = lib.types.strMatching "[0-9]+(\\.[0-9]+)? ?[KMGT]i?B" // {
    description = ''size with its unit, such as "6 GiB"'';
  };
}
