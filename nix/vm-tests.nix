# Scenarios in virtual machines: `nix build .#vm-tests.serves-jobs`. Each file in tests/ is one.
#
# They are not among the checks of the flake. Each needs KVM, and each evaluates whole hosts with their
# images, which together take more memory than everything else. scripts/check-nix.sh evaluates each in a
# process.
#
# The stand-in for GitHub is a container beside the virtual machine. The builder therefore needs these settings
# besides KVM (nixpkgs' manual, "Running Tests"):
#
#   nix.settings = {
#     auto-allocate-uids = true;
#     experimental-features = [ "auto-allocate-uids" "cgroups" ];
#     extra-system-features = [ "devnet" "uid-range" ];
#     extra-sandbox-paths = [ "/dev/net" ];
#   };
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
