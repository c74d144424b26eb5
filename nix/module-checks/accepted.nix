# Settings that are right.
{ lib }:
let
  settings = lib.mapAttrs (_: given: { services.runner-controller = given; });
in
{
  settings =
    settings {
      minimal = { };
      two-scopes = {
        scopes.widgets = {
          url = "https://github.com/acme/widgets";
          tokenFile = "/run/secrets/widgets";
        };
        scopes.umbrella = {
          url = "https://github.com/umbrella";
          app.id = "Iv23liExample";
          app.keyFile = "/run/secrets/umbrella.pem";
        };
        pools.ci.scope = "widgets";
        pools.big = {
          scope = "umbrella";
          group = "fast";
          labels = [ "big" ];
          image.directory = "/image";
          offset = 4;
          maxRunners = 2;
        };
      };
      one-named-scope.scopes.widgets = {
        url = "https://github.com/acme/widgets";
        tokenFile = "/run/secrets/widgets";
      };
      two-pools.pools.big = {
        labels = [ "big" ];
        image.directory = "/image";
        offset = 4;
        maxRunners = 2;
      };
      escape-hatch.settings.pools.ci.limits.open_files = 131072;
      app.github = {
        tokenFile = lib.mkForce null;
        app.id = "Iv23liExample";
        app.keyFile = "/run/secrets/app.pem";
      };
      nix.pools.ci = {
        nix = true;
        substituters = [ "https://cache.example.org" ];
        trustedPublicKeys = [ "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      };
      docker.pools.ci = {
        docker = true;
        total.memory = "16 GiB";
      };
      api-token = {
        apiTokenFile = "/run/secrets/api";
        prometheus.enable = true;
      };
      shared.pools.ci = {
        binds = [
          {
            from = "/srv/models";
            to = "/opt/models";
          }
          {
            from = "/nix/store/00000000000000000000000000000000-models";
            to = "/tmp/models";
          }
          {
            from = "/home/ci";
            to = "/home/runner/work/_tool";
            readOnly = false;
          }
        ];
        environment = {
          RUNNER_TOOL_CACHE = "/home/runner/work/_tool";
          _x = "a 'b' \"c\" $d ü";
          https_proxy = "http://198.51.100.9:3128";
        };
        devices = [ "/dev/kvm" ];
        capabilities = [ "CAP_NET_RAW" ];
      };
      listed.pools.ci = {
        egress = "listed";
        allow = [
          "10.0.0.5:443"
          "192.168.7.0/24:3128/tcp"
          "10.1.2.3:53/udp"
        ];
      };
      organisation = {
        github.url = "https://github.com/acme/";
        pools.ci.group = "fast";
      };
      enterprise = {
        github.url = "https://github.com/enterprises/acme";
        pools.ci.group = "fast";
      };
      enterprise-server.github.url = "https://github.example.com:8443/acme/widgets.git?tab=readme";
      proxies = {
        github.caFile = "/etc/ssl/private-ca.pem";
        github.proxy = {
          url = "http://proxy.lan:3128/";
          noProxy = [
            "10.0.0.0/8"
            ".lan"
            "[fd00::1]"
          ];
          credentialsFile = "/run/secrets/proxy";
        };
        pools.ci = {
          proxy.url = "http://10.0.0.5:3128";
          allow = [ "10.0.0.0/24:3128" ];
        };
      };
      public-proxy.pools.ci.proxy.url = "http://198.51.100.9";
      metrics-over-ipv6.prometheus = {
        enable = true;
        address = "::1";
      };
      plain-http = {
        github.apiUrl = "http://198.51.100.7:8080";
        settings.github.allow_plain_http = true;
      };
    }
    // lib.listToAttrs (
      map
        (
          schedule:
          lib.nameValuePair "schedule ${schedule}" {
            services.runner-controller.rebootWhenDrained = {
              enable = true;
              inherit schedule;
            };
          }
        )
        [
          "*-*-* 03:30"
          "*-*-01..07 2:15:00"
          "*-05~07/1"
          "Mon,Wed..Fri *-*-1,15 3:30 Europe/Berlin"
          "Sat *-*-1..7 18:00:00"
          "Sun 03:30"
          "hourly UTC"
          "weekly"
        ]
    )
    // {
      counted-boots = {
        boot.loader.systemd-boot = {
          enable = true;
          bootCounting.enable = true;
        };
        services.runner-controller.bootCheck.enable = true;
      };
      declared-operator = {
        users.mutableUsers = false;
        users.users.alice.isNormalUser = true;
        services.runner-controller.operators = [ "alice" ];
      };
      layers-on-another-disk = {
        fileSystems."/" = {
          device = "none";
          fsType = "tmpfs";
        };
        fileSystems."/var/lib/runner-layers".fsType = "xfs";
        services.runner-controller.pools.ci.layer.kind = "disk";
      };
      address-outside-the-block.networking.interfaces.eth0.ipv4.addresses = [
        { address = "10.201.0.1"; }
      ];
      # A directory as the image needs no store.
      store-from-elsewhere.fileSystems."/nix/store".fsType = "9p";
    };

  # For a whole host, with an image that is NixOS.
  whole = {
    github = {
      tokenFile = null;
      app.id = 12345;
      app.keyFile = "/run/secrets/app.pem";
    };
    prometheus.enable = true;
    prometheus.address = "10.0.0.5";
    prometheus.openFirewall = true;
    rebootWhenDrained.enable = true;
    webhook = {
      secretFile = "/run/secrets/webhook";
      nginx = {
        virtualHost = "runners.example.org";
        openFirewall = true;
      };
    };
    pools.ci = {
      docker = true;
      total.memory = "16 GiB";
    };
    pools.big = {
      labels = [ "big" ];
      image.directory = "/var/lib/runner-images/debian";
      offset = 4;
      maxRunners = 2;
    };
  };
}
