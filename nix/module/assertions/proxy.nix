# The proxies of scopes and of pools.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";
  values = import ../values.nix { inherit lib; };

  # Host and port of `http://HOST:PORT`; null for any other text.
  addressOf =
    url:
    let
      parts = builtins.match "http://([A-Za-z0-9._-]+|[[][0-9A-Fa-f:.]+[]])(:([0-9]{1,5}))?/?" url;
    in
    if parts == null then
      null
    else
      {
        host = lib.head parts;
        port = if lib.last parts == null then 80 else lib.toIntBase10 (lib.last parts);
      };

  isEntry = entry: builtins.match "[][A-Za-z0-9.:_/*-]+" entry != null;
  within = block: bits: bits != null && values.contains (values.block 8 32 block) bits;
  isPrivate =
    bits:
    lib.any (block: within block bits) [
      "10.0.0.0/8"
      "172.16.0.0/12"
      "192.168.0.0/16"
      "169.254.0.0/16"
    ];

  ofBoth =
    option: noCredentials: proxy:
    let
      wrong = lib.filter (entry: !isEntry entry) proxy.noProxy;
    in
    [
      {
        assertion = !lib.hasInfix "@" proxy.url;
        # The address is not repeated, because it has a password.
        message = "${option}.url: remove the credentials, because ${noCredentials}.";
      }
      {
        assertion = lib.hasInfix "@" proxy.url || addressOf proxy.url != null;
        message = "${option}.url: write it as http://HOST:PORT instead of \"${proxy.url}\", because the daemon and jobs speak to an HTTP proxy only.";
      }
      {
        assertion = wrong == [ ];
        message = "${option}.noProxy: change \"${lib.head wrong}\" to a host name, a domain, an address or a network, such as \".corp.example\".";
      }
    ];

  ofPool =
    name: pool:
    let
      address = addressOf pool.proxy.url;
      bits = if address == null then null else values.address address.host;
      entry = "${address.host}:${toString address.port}";
      opens =
        text:
        let
          destination = values.destination text;
        in
        destination.block != null
        && destination.port == address.port
        && destination.protocol == "tcp"
        && values.contains destination.block bits;
    in
    lib.optionals (pool.proxy != null) (
      ofBoth "${at}.pools.${name}.proxy" "a job could keep them; let the proxy accept this host's address"
        pool.proxy
      ++ [
        {
          assertion = !within "127.0.0.0/8" bits;
          message = "${at}.pools.${name}.proxy.url: name another machine instead of ${toString address.host}, because in a container loopback is the container itself.";
        }
        {
          assertion = !isPrivate bits || lib.any opens pool.allow;
          message = "${at}.pools.${name}.allow: add \"${entry}\", because jobs do not reach their proxy without it.";
        }
      ]
    );
in
{
  config = lib.mkIf cfg.enable {
    assertions =
      lib.concatMap (
        scope:
        lib.optionals (scope.given.proxy != null) (
          ofBoth "${scope.option}.proxy" "every user of the host can read them; put them into credentialsFile"
            scope.given.proxy
        )
      ) (import ../scopes.nix { inherit cfg lib; })
      ++ lib.concatLists (lib.mapAttrsToList ofPool cfg.pools);
  };
}
