# Paths. The program writes them into units, mount options and rules without quotes.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";
  inherit (import ../values.nix { inherit lib; }) isPlainPath;

  scopes = lib.listToAttrs (
    map (scope: lib.nameValuePair scope.option scope) (import ../scopes.nix { inherit cfg lib; })
  );

  paths = {
    "${at}.apiTokenFile" = cfg.apiTokenFile;
    "${at}.layerDir" = cfg.layerDir;
    "${at}.webhook.nextSecretFile" = cfg.webhook.nextSecretFile or null;
    "${at}.webhook.secretFile" = cfg.webhook.secretFile or null;
  }
  // lib.concatMapAttrs (_: scope: {
    "${scope.option}.app.keyFile" = scope.given.app.keyFile or null;
    "${scope.option}.caFile" = scope.given.caFile;
    "${scope.option}.proxy.credentialsFile" = scope.given.proxy.credentialsFile or null;
    "${scope.option}.tokenFile" = scope.given.tokenFile;
  }) scopes
  // lib.concatMapAttrs (name: pool: {
    "${at}.pools.${name}.image.directory" = pool.image.directory;
    "${at}.pools.${name}.image.runnerRoot" = pool.image.runnerRoot;
    "${at}.pools.${name}.workFolder" = pool.workFolder;
  }) cfg.pools;
in
{
  config.assertions = lib.mkIf cfg.enable (
    lib.mapAttrsToList (option: path: {
      assertion = path == null || isPlainPath (toString path);
      message = "${option}: write \"${toString path}\" as a plain absolute path: letters, digits and ._-+=?@ between single slashes, without . or .. parts.";
    }) paths
  );
}
