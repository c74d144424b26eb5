# Programs beside the daemon: GitHub's runner, Prometheus and the firewall.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";
  versions = import ../../runner-versions.nix { inherit lib; };
  values = import ../values.nix { inherit lib; };
  version = lib.getVersion cfg.runner.package;
  hasImage = lib.any (pool: pool.image.directory == null) (lib.attrValues cfg.pools);
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.prometheus.openFirewall -> cfg.prometheus.enable;
        message = "${at}.prometheus.openFirewall: set prometheus.enable too, or remove openFirewall, because no program listens on that port.";
      }
      {
        assertion =
          values.address cfg.prometheus.address != null
          || builtins.match "[0-9A-Fa-f.]*:[0-9A-Fa-f:.]+" cfg.prometheus.address != null;
        message = "${at}.prometheus.address: set it to an address such as \"10.0.0.5\" or \"::1\", because the daemon does not resolve the name \"${cfg.prometheus.address}\".";
      }
    ];

    warnings =
      # A refused version is an assertion of the image.
      lib.optional
        (
          hasImage
          && lib.versionAtLeast version versions.minimum
          && lib.versionOlder version versions.inTime
        )
        ''
          ${at}.runner.package: take version ${versions.inTime} or later instead of ${version}, because GitHub may
          refuse a runner 30 days after the next release. Run `nix flake update nixpkgs-runner`.
        ''
      ++ lib.optional (cfg.prometheus.openFirewall && lib.hasPrefix "127." cfg.prometheus.address) ''
        ${at}.prometheus.openFirewall opens a port that answers only to this host; set
        ${at}.prometheus.address to another address.
      '';
  };
}
