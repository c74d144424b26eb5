{
  description = "Hosts that run GitHub Actions jobs in a warm pool of containers";

  inputs = {
    # The hosts' own nixpkgs, which a new version of the runner controller does not change.
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    runner-controller.url = "github:OWNER/runner-controller";
    runner-controller.inputs.nixpkgs.follows = "nixpkgs";
    # `nix flake update nixpkgs-runner` updates only this, because GitHub refuses runners that are some weeks old.
    nixpkgs-runner.url = "github:NixOS/nixpkgs/nixos-unstable-small";
    agenix.follows = "runner-controller/agenix";
    disko.follows = "runner-controller/disko";
  };

  outputs = inputs: {
    nixosConfigurations.box = inputs.nixpkgs.lib.nixosSystem {
      specialArgs = { inherit inputs; };
      modules = [
        inputs.agenix.nixosModules.default
        inputs.disko.nixosModules.disko
        inputs.runner-controller.nixosModules.default
        ./box.nix
      ];
    };
  };
}
