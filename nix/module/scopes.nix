# The scopes as a list. Each has its options, their place, and its part of `settings`.
{ lib, cfg }:
let
  at = "services.runner-controller";
in
if cfg.scopes == { } then
  [
    {
      name = null;
      option = "${at}.github";
      given = cfg.github;
      settings = cfg.settings.github or { };
      inherit (cfg) pools;
    }
  ]
else
  lib.mapAttrsToList (name: given: {
    inherit name given;
    option = "${at}.scopes.${name}";
    settings = cfg.settings.scopes.${name} or { };
    pools = lib.filterAttrs (
      _: pool: pool.scope == name || pool.scope == null && lib.attrNames cfg.scopes == [ name ]
    ) cfg.pools;
  }) cfg.scopes
