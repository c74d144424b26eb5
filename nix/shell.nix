# `nix develop`: all programs that `just` calls.
{ pkgs, agenix }:
pkgs.mkShell {
  packages = [
    agenix
  ]
  ++ (with pkgs; [
    age
    cargo
    cargo-nextest
    clippy
    deadnix
    jq
    just
    nixfmt
    nixos-anywhere
    nixos-rebuild-ng
    rust-analyzer
    rustc
    rustfmt
    ssh-to-age
  ]);
  env.RUST_SRC_PATH = "${pkgs.rustPlatform.rustLibSrc}";
}
