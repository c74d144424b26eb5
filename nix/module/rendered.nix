# Files of the host: units, slices, firewall, polkit rule, directories, kernel settings.
#
# The program renders all of them for every kind of host (`runner-controller units`). This file builds that
# output from the configuration, so that the module cannot differ from the program. Evaluation cannot read the
# output of a build, so host-files.json records the names of the files. A test of the program checks the
# record, and the build below fails if it is wrong.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.runner-controller;
  recorded = lib.importJSON ./host-files.json;

  perPool = name: map (pool: lib.replaceStrings [ "POOL" ] [ pool ] name) (lib.attrNames cfg.pools);
  expand = name: if lib.hasInfix "POOL" name then perPool name else [ name ];
  # Only a host that tells a command of its events has the units of that.
  isUsed = name: _: cfg.settings ? notify || !lib.hasPrefix "runner-controller-notify" name;
  units = lib.listToAttrs (
    lib.concatLists (
      lib.mapAttrsToList (
        name: wantedBy: map (unit: lib.nameValuePair unit wantedBy) (expand name)
      ) (lib.filterAttrs isUsed recorded.units)
    )
  );

  configFile = (pkgs.formats.toml { }).generate "runner-controller.toml" cfg.settings;

  # The machine that builds runs the program, and the host may be of another architecture.
  renderer =
    if pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform then
      cfg.package
    else
      cfg.package.__spliced.buildHost
        or (pkgs.buildPackages.callPackage ../packages/runner-controller.nix { });

  hostFiles =
    pkgs.runCommand "runner-controller-host-files"
      {
        nativeBuildInputs = [ renderer ];
        expected = lib.concatLines (lib.attrNames units);
        passAsFile = [ "expected" ];
        preferLocalBuild = true;
      }
      ''
        runner-controller check-config ${configFile}
        runner-controller --config ${configFile} units \
          --binary ${lib.getExe cfg.package} --install-root root

        ls root/etc/systemd/system | LC_ALL=C sort > rendered
        LC_ALL=C sort "$expectedPath" | diff - rendered || {
          echo "nix/module/host-files.json does not name the units that the program renders; run: RECORD=1 cargo test --package runner-controller --test nixos" >&2
          exit 1
        }
        for link in root${cfg.package}/bin/*; do
          test -e "${cfg.package}/bin/''${link##*/}" || {
            echo "the package lacks the command ''${link##*/}" >&2
            exit 1
          }
        done

        mkdir -p "$out/lib/systemd"
        cp -r root/etc "$out/etc"
        mv "$out/etc/systemd/system" "$out/lib/systemd/system"
        mv "$out/etc/tmpfiles.d" "$out/lib/tmpfiles.d"
        # NixOS creates users by itself.
        rm -r "$out/etc/sysusers.d"
      '';
in
{
  config = lib.mkIf cfg.enable {
    services.runner-controller.build = {
      inherit configFile hostFiles units;
    };
  };
}
