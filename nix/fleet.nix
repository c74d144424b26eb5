# `nix run .#fleet -- COMMAND ARGUMENTS…`: scripts/fleet.sh with its programs, for the repository around the
# current directory. It needs a flake, `hosts/addresses.json` and `secrets/` there.
{ pkgs, agenix }:
pkgs.writeShellApplication {
  name = "fleet";
  runtimeInputs = [
    agenix
  ]
  ++ (with pkgs; [
    age
    bash
    gawk
    git
    gnugrep
    gnused
    nixos-anywhere
    nixos-rebuild-ng
    openssh
  ]);
  text = ''
    FLEET_ROOT=$(git rev-parse --show-toplevel)
    export FLEET_ROOT
    exec bash ${../scripts}/fleet.sh "$@"
  '';
}
