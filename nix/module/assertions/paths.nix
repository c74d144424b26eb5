# Paths. The program writes them into units, mount options and rules without quotes.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";
  inherit (import ../values.nix { inherit lib; }) isPlainPath;

  paths = {
    apiTokenFile = cfg.apiTokenFile;
    "github.app.keyFile" = cfg.github.app.keyFile or null;
    "github.caFile" = cfg.github.caFile;
    "github.proxy.credentialsFile" = cfg.github.proxy.credentialsFile or null;
    "github.tokenFile" = cfg.github.tokenFile;
    layerDir = cfg.layerDir;
    "webhook.nextSecretFile" = cfg.webhook.nextSecretFile or null;
    "webhook.secretFile" = cfg.webhook.secretFile or null;
  }
  // lib.concatMapAttrs (name: pool: {
    "pools.${name}.image.directory" = pool.image.directory;
    "pools.${name}.image.runnerRoot" = pool.image.runnerRoot;
    "pools.${name}.workFolder" = pool.workFolder;
  }) cfg.pools;
in
{
  config.assertions = lib.mkIf cfg.enable (
    lib.mapAttrsToList (option: path: {
      assertion = path == null || isPlainPath (toString path);
      message = "${at}.${option}: write \"${toString path}\" as a plain absolute path: letters, digits and ._-+=?@ between single slashes, without . or .. parts.";
    }) paths
  );
}
