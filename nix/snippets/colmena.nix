inputs: {
  colmenaHive = inputs.colmena.lib.makeHive {
    meta = {
      nixpkgs = inputs.nixpkgs.legacyPackages.x86_64-linux;
      specialArgs = { inherit inputs; };
    };
    runner-01 = {
      deployment.targetHost = "192.0.2.11";
      imports = [
        inputs.agenix.nixosModules.default
        inputs.disko.nixosModules.disko
        inputs.runner-controller.nixosModules.default
        ./box.nix
      ];
    };
  };
}
