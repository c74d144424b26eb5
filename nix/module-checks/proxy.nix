# Mistakes in proxies and other addresses.
{ lib }:
let
  settings = lib.mapAttrs (_: given: { services.runner-controller = given; });
  ofHost = given: { github.proxy = given; };
  ofCi = proxy: { pools.ci = { inherit proxy; }; };
  url = given: { url = given; };
in
{
  refused = settings {
    "github.proxy.url: write it as http://HOST:PORT instead of \"10.0.0.5:3128\"" = ofHost (
      url "10.0.0.5:3128"
    );
    "github.proxy.url: write it as http://HOST:PORT instead of \"https://proxy.lan:3128\"" = ofHost (
      url "https://proxy.lan:3128"
    );
    "github.proxy.url: write it as http://HOST:PORT instead of \"http://proxy.lan/path\"" = ofHost (
      url "http://proxy.lan/path"
    );
    "github.proxy.url: remove the credentials, because every user of the host can read them" = ofHost (
      url "http://me:word@proxy.lan:3128"
    );
    "github.proxy.noProxy: change \"a b\" to a host name" = ofHost {
      url = "http://proxy.lan:3128";
      noProxy = [
        ".lan"
        "a b"
      ];
    };
    "pools.ci.proxy.url: write it as http://HOST:PORT instead of \"socks5://198.51.100.9:1080\"" = ofCi (
      url "socks5://198.51.100.9:1080"
    );
    "pools.ci.proxy.url: remove the credentials, because a job could keep them" = ofCi (
      url "http://me:word@198.51.100.9:3128"
    );
    "pools.ci.proxy.noProxy: change \"\" to a host name" = ofCi {
      url = "http://198.51.100.9:3128";
      noProxy = [ "" ];
    };
    "pools.ci.proxy.url: name another machine instead of 127.0.0.1" = ofCi (
      url "http://127.0.0.1:3128"
    );
    "pools.ci.allow: add \"10.0.0.5:3128\", because jobs do not reach their proxy" = {
      pools.ci = {
        proxy.url = "http://10.0.0.5:3128";
        # Another port, and another protocol.
        allow = [
          "10.0.0.5:3129"
          "10.0.0.5:3128/udp"
        ];
      };
    };
    "github.apiUrl: set it to the base URL of the API" = {
      github.apiUrl = "github.example.com/api/v3";
    };
    "prometheus.address: set it to an address such as \"10.0.0.5\" or \"::1\", because the daemon does not resolve the name \"localhost\"" =
      {
        prometheus.enable = true;
        prometheus.address = "localhost";
      };
  };
}
