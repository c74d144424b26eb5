# Sources of the Rust crates alone, so that a change to docs, hosts or Nix files rebuilds no Rust. All
# members are here, because cargo reads every manifest of the workspace.
{ lib }:
let
  fs = lib.fileset;
  root = ../.;
  crates = fs.unions [
    (root + "/Cargo.toml")
    (root + "/Cargo.lock")
    (root + "/clippy.toml")
    (root + "/pool")
    (root + "/runner-controller")
    (root + "/github-sim")
    (root + "/simulate")
    (root + "/status")
    (root + "/stdio")
    (root + "/testbed")
    (root + "/traces")
  ];
in
fs.toSource {
  inherit root;
  fileset = fs.difference crates (fs.fileFilter (file: file.hasExt "md") root);
}
