{
  description = "A warm pool of ephemeral systemd-nspawn containers for GitHub Actions, on your own machines";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    # Only github-runner comes from here, and `nix flake update nixpkgs-runner` updates nothing else. GitHub
    # refuses runners that are some weeks old (docs/runner-versions.md), and a release of NixOS is older.
    nixpkgs-runner.url = "github:NixOS/nixpkgs/nixos-unstable-small";
    agenix = {
      url = "github:ryantm/agenix";
      inputs.nixpkgs.follows = "nixpkgs";
      inputs.darwin.follows = "";
      inputs.home-manager.follows = "";
    };
    disko = {
      url = "github:nix-community/disko";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    inputs@{ self, nixpkgs, ... }:
    let
      inherit (nixpkgs) lib;
      linux = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAllSystems = lib.genAttrs linux;
      # Machines of operators.
      forAllMachines = lib.genAttrs (linux ++ [ "aarch64-darwin" ]);
      pkgsFor = system: nixpkgs.legacyPackages.${system}.extend self.overlays.default;
    in
    {
      overlays.default = import ./nix/overlay.nix;

      packages = forAllSystems (system: {
        inherit (pkgsFor system) github-sim runner-controller;
        default = self.packages.${system}.runner-controller;
      });

      nixosModules = {
        runner-controller = ./nix/module;
        default = self.nixosModules.runner-controller;
      };

      nixosConfigurations = import ./hosts { inherit inputs; };

      checks = forAllSystems (system: import ./nix/checks.nix { inherit inputs system; });

      # Not among the checks, because they need KVM and much memory.
      legacyPackages.x86_64-linux.vm-tests = import ./nix/vm-tests.nix {
        inherit inputs;
        system = "x86_64-linux";
      };

      apps = forAllMachines (system: {
        fleet = {
          type = "app";
          program = lib.getExe (
            import ./nix/fleet.nix {
              pkgs = pkgsFor system;
              agenix = inputs.agenix.packages.${system}.default;
            }
          );
          meta.description = "Deploys, watches and repairs hosts";
        };
      });

      devShells = forAllMachines (system: {
        default = import ./nix/shell.nix {
          pkgs = pkgsFor system;
          agenix = inputs.agenix.packages.${system}.default;
        };
      });

      formatter = forAllMachines (system: (pkgsFor system).nixfmt-tree);

      templates.default = {
        path = ./nix/template;
        description = "Your hosts that run GitHub Actions jobs in a warm pool of containers";
      };

      # Text for files in this repository: `nix eval --raw .#lib.options > docs/options.md`. And `ageWarnings`
      # for hosts.
      lib = import ./nix/recorded.nix { inherit inputs; };
    };
}
