{
  services.harmonia.cache = {
    enable = true;
    signKeyPaths = [ "/run/agenix/harmonia" ];
    settings.bind = "10.0.0.5:5000";
  };
  # Only the runners' links reach the port.
  networking.nftables.enable = true;
  networking.firewall.interfaces."rc-*".allowedTCPPorts = [ 5000 ];

  services.runner-controller.pools.ci = {
    nix = true;
    allow = [ "10.0.0.5:5000" ];
    substituters = [ "http://10.0.0.5:5000" ];
    trustedPublicKeys = [ "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
  };
}
