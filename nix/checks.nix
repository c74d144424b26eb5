# Checks of `nix flake check`: some only evaluate, the others build.
{ inputs, system }:
let
  inherit (inputs) self nixpkgs;
  inherit (nixpkgs) lib;
  pkgs = nixpkgs.legacyPackages.${system}.extend self.overlays.default;
  packages = self.packages.${system};

  crate =
    name: inputs: phase:
    packages.runner-controller.overrideAttrs (old: {
      pname = "runner-controller-${name}";
      # The whole repository, because tests also read files outside the crates.
      src = self;
      nativeBuildInputs = old.nativeBuildInputs ++ inputs;
      buildPhase = phase;
      installPhase = "touch $out";
      dontFixup = true;
    });

  # Compares a recorded file with the result of evaluation.
  recorded =
    file: read: now: command:
    lib.throwIf (read (builtins.readFile file) != now)
      "${baseNameOf file} differs from evaluation; record it anew: ${command}"
      (pkgs.writeText (baseNameOf file) (builtins.toJSON now));
in
{
  package = packages.runner-controller;
  stand-ins = packages.github-sim;

  clippy = crate "clippy" [ pkgs.clippy ] ''
    cargo clippy --offline --workspace --all-targets -- --deny warnings
  '';
  rustfmt = crate "rustfmt" [ pkgs.rustfmt ] "cargo fmt --all --check";
  tests =
    crate "tests"
      [
        pkgs.bash
        pkgs.cargo-nextest
      ]
      ''
        cargo nextest run --offline --package pool --package status --package runner-controller --package github-sim --no-fail-fast
      '';

  nixfmt = pkgs.runCommand "nixfmt" { nativeBuildInputs = [ pkgs.nixfmt ]; } ''
    find ${self} -name '*.nix' -exec nixfmt --check {} +
    touch $out
  '';
  deadnix = pkgs.runCommand "deadnix" { nativeBuildInputs = [ pkgs.deadnix ]; } ''
    deadnix --fail --no-lambda-pattern-names ${self}
    touch $out
  '';
  secrets = pkgs.runCommand "secrets" { nativeBuildInputs = [ pkgs.bash ]; } ''
    bash ${self}/secrets/check.sh
    touch $out
  '';

  # The template, with the inputs of this flake.
  template =
    let
      template = (import ./template/flake.nix).outputs (inputs // { runner-controller = self; });
    in
    pkgs.writeText "template" (
      lib.concatLines (
        lib.mapAttrsToList (
          _: host: builtins.unsafeDiscardStringContext host.config.system.build.toplevel.drvPath
        ) template.nixosConfigurations
      )
    );

  module = import ./module-checks.nix { inherit inputs pkgs system; };
}
// lib.optionalAttrs (system == "x86_64-linux") {
  options =
    recorded ../docs/options.md lib.id self.lib.options
      "nix eval --raw .#lib.options > docs/options.md";
  golden =
    recorded ./golden/runner-01.json builtins.fromJSON self.lib.golden
      "nix eval --json .#lib.golden | jq . > nix/golden/runner-01.json";
}
