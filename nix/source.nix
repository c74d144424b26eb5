# Sources of the Rust crates, and the pages that the program prints (`runner-controller docs`), so that a change to
# hosts or Nix files rebuilds no Rust. All members are here, because cargo reads every manifest of the workspace.
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
  pages = fs.fileFilter (file: file.hasExt "md") root;
in
fs.toSource {
  inherit root;
  fileset = fs.union (fs.difference crates pages) (fs.intersection pages (root + "/docs"));
}
