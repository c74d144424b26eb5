# Every directory here is a host: its files are its configuration, its name the one it has.
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
