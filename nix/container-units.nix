# Returns the units that NixOS starts when a container boots, besides those of systemd's own `.wants`
# directories. Evaluation cannot read these. nix/container.nix masks what it does not need of them.
{ lib, config }:
let
  # Dependencies in systemd's own files of targets (units/*.target of systemd).
  upstream = {
    "multi-user.target" = [ "basic.target" ];
    "basic.target" = [
      "paths.target"
      "slices.target"
      "sockets.target"
      "sysinit.target"
      "timers.target"
    ];
    "sysinit.target" = [
      "local-fs.target"
      "swap.target"
    ];
  };
  enabled = lib.filterAttrs (_: unit: unit.enable) config.systemd.units;
  started = lib.zipAttrs (
    lib.mapAttrsToList (
      name: unit: lib.genAttrs (unit.wantedBy ++ unit.requiredBy ++ unit.upheldBy) (_: name)
    ) enabled
  );
  closure = lib.genericClosure {
    startSet = [ { key = config.systemd.defaultUnit; } ];
    operator =
      { key }: map (key: { inherit key; }) (started.${key} or [ ] ++ upstream.${key} or [ ]);
  };
in
lib.filter (name: !lib.hasSuffix ".target" name) (map (unit: unit.key) closure)
