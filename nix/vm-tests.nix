# Scenarios in virtual machines: `nix build .#vm-tests.serves-jobs`. Each file in tests/ is one.
#
# They are not among the checks of the flake. Each needs KVM, and each evaluates whole hosts with their
# images, which together take more memory than everything else. scripts/check-nix.sh evaluates each in a
# process.
{ inputs, system }:
let
  inherit (inputs) self nixpkgs;
  inherit (nixpkgs) lib;
  pkgs = nixpkgs.legacyPackages.${system}.extend self.overlays.default;
  scenarios = lib.filterAttrs (name: type: type == "regular" && lib.hasSuffix ".nix" name) (
    builtins.readDir ./tests
  );
in
lib.mapAttrs' (
  file: _:
  lib.nameValuePair (lib.removeSuffix ".nix" file) (
    pkgs.testers.runNixOSTest {
      imports = [ (./tests + "/${file}") ];
      _module.args.common = import ./tests/common { inherit self; };
    }
  )
) scenarios
