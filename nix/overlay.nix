final: _: {
  runner-controller = final.callPackage ./packages/runner-controller.nix { };
  github-sim = final.callPackage ./packages/github-sim.nix { };
}
