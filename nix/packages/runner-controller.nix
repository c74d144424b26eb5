{
  lib,
  callPackage,
  stdenv,
}:
let
  # The program is also these commands: recorded from it, and checked when a host is built.
  names = (lib.importJSON ../module/host-files.json).commands;
in
callPackage ./crate.nix { } {
  name = "runner-controller";
  description = "Keeps a warm pool of ephemeral systemd-nspawn containers that each run one GitHub Actions job";
  postInstall =
    lib.concatMapStrings (name: ''
      ln -s runner-controller "$out/bin/${name}"
    '') names
    # Written by the program itself, so only where it runs.
    + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
      program="$out/bin/runner-controller"
      "$program" man "$out/share/man/man8"
      "$program" completions bash "$out/share/bash-completion/completions"
      "$program" completions fish "$out/share/fish/vendor_completions.d"
      "$program" completions zsh "$out/share/zsh/site-functions"
    '';
  passthru = { inherit names; };
}
