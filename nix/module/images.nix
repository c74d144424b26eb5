# The NixOS systems that containers boot: one for each pool, evaluated and built with the host.
#
# The configuration refers to each system, so it is part of the host's closure: a deploy brings it, and
# the garbage collector keeps it. Nothing is evaluated when a container starts.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.runner-controller;

  container =
    name: pool:
    import (pkgs.path + "/nixos/lib/eval-config.nix") {
      # The host's package set is not evaluated a second time.
      system = null;
      inherit (pool.image) specialArgs;
      modules = [
        ../container.nix
        {
          nixpkgs.pkgs = pkgs;
          system.name = "runner-${name}";
          system.stateVersion = lib.mkDefault config.system.stateVersion;
          runner = {
            package = lib.mkDefault cfg.runner.package;
            root = pool.image.runnerRoot;
            inherit (pool) docker nix workFolder;
          };
        }
      ]
      ++ pool.image.modules;
    };
  inherit (cfg.build) containers;

  # A container's own failure would not name its pool.
  ofPool =
    name: container:
    map (entry: {
      assertion = false;
      message = "services.runner-controller.pools.${name}.image: ${entry.message}";
    }) (lib.filter (entry: !entry.assertion) container.config.assertions);
in
{
  config = lib.mkIf cfg.enable {
    services.runner-controller.build.containers = lib.mapAttrs container (
      lib.filterAttrs (_: pool: pool.image.directory == null) cfg.pools
    );
    assertions = lib.concatLists (lib.mapAttrsToList ofPool containers);
  };
}
