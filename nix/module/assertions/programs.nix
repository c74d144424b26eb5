# Programs beside the daemon that meet it: Prometheus and the firewall.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.openMetricsFirewall -> cfg.prometheus.enable;
        message = "${at}.openMetricsFirewall: enable ${at}.prometheus too, or remove openMetricsFirewall, because no program listens on that port.";
      }
    ];

    warnings =
      lib.optional (cfg.openMetricsFirewall && lib.hasPrefix "127." cfg.prometheus.address) ''
        ${at}.openMetricsFirewall opens a port that answers only to this host; set
        ${at}.prometheus.address to another address.
      '';
  };
}
