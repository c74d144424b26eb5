{
  services.runner-controller.pools.ci = {
    nix = true;
    substituters = [ "https://acme.cachix.org" ];
    trustedPublicKeys = [ "acme.cachix.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
  };
}
