{
  nix.settings = {
    substituters = [ "https://cache.example.org" ];
    trusted-public-keys = [ "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
  };
}
