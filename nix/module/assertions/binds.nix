# `binds` of pools: directories of the host that containers share. access.json has the program's lists, and
# runner-controller/src/config/read/binds.rs the same rules.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";
  access = lib.importJSON ../access.json;
  inherit (import ../values.nix { inherit lib; }) isBelow isPlainPath;

  overlap = a: b: isBelow a b || isBelow b a;
  overlapping = path: lib.findFirst (overlap path) null;

  # Directories of the daemon and of images. The first two have no option.
  own = [
    (cfg.settings.state_dir or "/var/lib/runner-controller")
    (cfg.settings.run_dir or "/run/runner-controller")
    (toString cfg.layerDir)
  ]
  ++ map toString (
    lib.filter (directory: directory != null) (
      lib.mapAttrsToList (_: pool: pool.image.directory) cfg.pools
    )
  );
  secrets = lib.filter (file: file != null) (
    [
      cfg.apiTokenFile
      (cfg.webhook.secretFile or null)
      (cfg.webhook.nextSecretFile or null)
      (cfg.settings.traces.headers_file or null)
    ]
    ++ lib.concatMap (scope: [
      scope.given.tokenFile
      (scope.given.app.keyFile or null)
      (scope.given.proxy.credentialsFile or null)
    ]) (import ../scopes.nix { inherit cfg lib; })
  );

  # Returns the reason why no container may have this directory of the host.
  wrongSource =
    bind:
    let
      from = toString bind.from;
      inStore = lib.hasPrefix "${builtins.storeDir}/" from;
      tree = overlapping from access.host_trees;
      directory = overlapping from own;
      secret = lib.findFirst (isBelow from) null secrets;
    in
    if !isPlainPath from then
      "is not a plain path: letters, digits and ._-+=?@ between single slashes"
    else if tree != null then
      "has a part of ${tree}, which belongs to the host alone"
    else if overlap from "/nix" && !inStore then
      "is not below ${builtins.storeDir}, the only part of /nix for a container"
    else if directory != null then
      "overlaps ${directory}, which is for the daemon and root alone"
    else if secret != null then
      "contains ${secret}, a secret"
    else if inStore && !bind.readOnly then
      "is never writable, although readOnly is false"
    else
      null;

  # Returns the reason why a container cannot have a directory at this path.
  wrongTarget =
    pool: to:
    let
      tree = overlapping to (access.container_trees ++ [ (toString pool.image.runnerRoot) ]);
      hidden = lib.findFirst (isBelow to) null (
        access.container_parents ++ [ (toString pool.workFolder) ]
      );
    in
    if !isPlainPath to then
      "is not a plain path: letters, digits and ._-+=?@ between single slashes"
    else if tree != null then
      "would hide or change ${tree} of the container"
    else if hidden != null then
      "would hide ${hidden} of the container"
    else
      null;

  ofPool =
    name: pool:
    let
      here = "${at}.pools.${name}.binds";
      targets = map (bind: toString bind.to) pool.binds;
      wrongSources = lib.filter (bind: wrongSource bind != null) pool.binds;
      wrongTargets = lib.filter (to: wrongTarget pool to != null) targets;
      source = lib.head wrongSources;
      target = lib.head wrongTargets;
      # Each target with those before it.
      shared = lib.filter ({ to, other }: other != null) (
        lib.imap0 (number: to: {
          inherit to;
          other = overlapping to (lib.take number targets);
        }) targets
      );
    in
    [
      {
        assertion = lib.length pool.binds <= 16;
        message = "${here}: keep 16 of ${toString (lib.length pool.binds)} directories, or share one directory above several of them.";
      }
      {
        assertion = wrongSources == [ ];
        message = "${here}: change from = \"${toString source.from}\", which ${wrongSource source}; share a directory for jobs alone, such as \"/srv/ccache\".";
      }
      {
        assertion = wrongTargets == [ ];
        message = "${here}: change to = \"${target}\", which ${wrongTarget pool target}; take another path, such as \"/mnt/ccache\".";
      }
      {
        assertion = shared == [ ];
        message = "${here}: change to = \"${(lib.head shared).to}\", which overlaps ${(lib.head shared).other}; put directories beside each other.";
      }
    ];
in
{
  config.assertions = lib.mkIf cfg.enable (lib.concatLists (lib.mapAttrsToList ofPool cfg.pools));
}
