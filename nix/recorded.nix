# Files of this repository that come from evaluation. Checks compare them.
{ inputs }:
let
  inherit (inputs.nixpkgs) lib;
  pkgs = inputs.nixpkgs.legacyPackages.x86_64-linux;
  host = inputs.self.nixosConfigurations.runner-01;
in
{
  # nix eval --raw .#lib.options > docs/options.md
  options = import ./options-doc.nix { inherit lib pkgs; };
  # Warnings of a host about the age of the input from which its runner comes.
  inherit (import ./runner-versions.nix { inherit lib; }) ageWarnings;
  # nix eval --json .#lib.golden | jq . > nix/golden/runner-01.json
  golden = import ./golden.nix { inherit lib pkgs host; };
}
