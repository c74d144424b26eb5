# Package of one crate of the workspace. Cargo's lock file suffices: no hash to maintain, no further input.
{ lib, rustPlatform }:
{
  name,
  description,
  mainProgram ? name,
  postInstall ? "",
  nativeBuildInputs ? [ ],
  buildFeatures ? [ ],
  passthru ? { },
}:
rustPlatform.buildRustPackage {
  pname = name;
  inherit ((lib.importTOML ../../Cargo.toml).workspace.package) version;
  src = import ../source.nix { inherit lib; };
  cargoLock.lockFile = ../../Cargo.lock;
  cargoBuildFlags = [
    "--package"
    name
  ];
  # `checks.tests` runs the tests, so that a deploy does not wait for them.
  doCheck = false;
  strictDeps = true;
  inherit
    buildFeatures
    nativeBuildInputs
    postInstall
    passthru
    ;
  meta = {
    inherit description mainProgram;
    license = lib.licenses.mit;
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
}
