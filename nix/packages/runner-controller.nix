{
  lib,
  callPackage,
  stdenv,
  # True for a program that can send traces of runners to a collector (docs/operations.md).
  withTraces ? false,
}:
let
  # Other names of the program, recorded from it. The build of a host checks them.
  names = (lib.importJSON ../module/host-files.json).commands;
in
callPackage ./crate.nix { } {
  name = "runner-controller";
  description = "Keeps a warm pool of ephemeral systemd-nspawn containers that each run one GitHub Actions job";
  postInstall =
    lib.concatMapStrings (name: ''
      ln -s runner-controller "$out/bin/${name}"
    '') names
    # The program writes these, so only a platform that can run it has them.
    + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
      program="$out/bin/runner-controller"
      "$program" man "$out/share/man/man8"
      "$program" completions bash "$out/share/bash-completion/completions"
      "$program" completions fish "$out/share/fish/vendor_completions.d"
      "$program" completions zsh "$out/share/zsh/site-functions"
    '';
  buildFeatures = lib.optional withTraces "traces";
  passthru = { inherit names; };
}
