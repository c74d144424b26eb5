# Stand-ins for GitHub and for its listener, because the VM tests have no internet.
{ callPackage }:
callPackage ./crate.nix { } {
  name = "github-sim";
  description = "Strict stand-ins for GitHub's runner API and for the runner's listener";
}
