# What lies in this repository as text and comes from evaluation. Each is written by
# `nix eval --raw .#lib.NAME > FILE`, and a check compares.
{ inputs }:
let
  inherit (inputs.nixpkgs) lib;
  pkgs = inputs.nixpkgs.legacyPackages.x86_64-linux;
  host = inputs.self.nixosConfigurations.runner-01;
in
{
  # docs/options.md
  options = import ./options-doc.nix { inherit lib pkgs; };
  # nix/golden/runner-01.json
  golden = import ./golden.nix { inherit lib pkgs host; };
}
