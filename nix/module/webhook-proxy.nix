# A virtual host of nginx with TLS, which passes GitHub's deliveries on to the daemon.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  proxy = cfg.webhook.nginx or null;
in
{
  config = lib.mkIf (cfg.enable && proxy != null) {
    services.nginx = {
      enable = true;
      virtualHosts.${proxy.virtualHost} = {
        enableACME = lib.mkDefault true;
        forceSSL = lib.mkDefault true;
        locations."= ${proxy.path}" = {
          proxyPass = "http://127.0.0.1:${toString cfg.webhook.port}";
          # GitHub sends at most 25 MB. The signature is about the body's bytes, which nginx does not change.
          extraConfig = ''
            client_max_body_size 25m;
            limit_except POST { deny all; }
          '';
        };
        locations."/".return = lib.mkDefault "404";
      };
    };
    networking.firewall.allowedTCPPorts = lib.mkIf proxy.openFirewall [
      80
      443
    ];
  };
}
