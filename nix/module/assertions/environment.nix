# `environment` of pools: variables of listener and jobs. access.json has the program's lists, and
# runner-controller/src/config/read/environment.rs the same rules.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";
  access = lib.importJSON ../access.json;

  isName = name: lib.stringLength name <= 256 && builtins.match "[A-Za-z_][A-Za-z0-9_]*" name != null;
  # The length comes first, because a match of a long text is expensive.
  isValue = text: lib.stringLength text <= 4096 && builtins.match "[^[:cntrl:]]*" text != null;
  hasReservedPrefix =
    name: lib.any (prefix: lib.hasPrefix prefix name) access.reserved_variable_prefixes;
  isReserved =
    name:
    lib.elem name access.reserved_variables
    || hasReservedPrefix name && !lib.elem name access.open_variables;

  # Returns an assertion that no variable is wrong in this way. A value is not repeated, because it may be secret.
  none =
    here: variables:
    { isWrong, message }:
    let
      wrong = lib.attrNames (lib.filterAttrs isWrong variables);
    in
    {
      assertion = wrong == [ ];
      message = "${here}: ${message (lib.head wrong)}";
    };

  ofPool =
    name: pool:
    let
      here = "${at}.pools.${name}.environment";
      count = lib.length (lib.attrNames pool.environment);
    in
    [
      {
        assertion = count <= 64;
        message = "${here}: keep 64 of ${toString count} variables, and set others by systemd.services.github-runner.environment in image.modules.";
      }
    ]
    ++ map (none here pool.environment) [
      {
        isWrong = name: _: !isName name;
        message =
          name:
          "rename \"${name}\" to letters, digits and underscores, without a digit at the beginning.";
      }
      {
        isWrong = name: _: isReserved name;
        message = name: "remove ${name}, which belongs to the runner, to systemd or to the dynamic linker.";
      }
      {
        isWrong = name: _: pool.proxy != null && lib.elem name access.proxy_variables;
        message = name: "remove ${name}, which the pool's proxy sets.";
      }
      {
        isWrong = _: value: !isValue value;
        message =
          name:
          "change the value of ${name} to at most 4096 bytes without a line break or another control character.";
      }
    ];
in
{
  config.assertions = lib.mkIf cfg.enable (lib.concatLists (lib.mapAttrsToList ofPool cfg.pools));
}
