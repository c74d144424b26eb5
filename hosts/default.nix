# Each directory here is the host of that name, and contains its configuration.
{ inputs }:
let
  inherit (inputs.nixpkgs) lib;
  host =
    name:
    lib.nixosSystem {
      specialArgs = { inherit inputs; };
      modules = [
        inputs.agenix.nixosModules.default
        inputs.disko.nixosModules.disko
        inputs.self.nixosModules.default
        ./common.nix
        (./. + "/${name}")
        { networking.hostName = name; }
      ];
    };
  directories = lib.filterAttrs (_: type: type == "directory") (builtins.readDir ./.);
in
lib.mapAttrs (name: _: host name) directories
