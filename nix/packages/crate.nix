# One crate of the workspace, by cargo's lock alone: no hash to keep, no further input.
{ lib, rustPlatform }:
{
  name,
  description,
  mainProgram ? name,
  postInstall ? "",
  nativeBuildInputs ? [ ],
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
  # A deploy does not wait for the tests; `checks.tests` runs them.
  doCheck = false;
  strictDeps = true;
  inherit nativeBuildInputs postInstall passthru;
  meta = {
    inherit description mainProgram;
    license = lib.licenses.mit;
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
}
