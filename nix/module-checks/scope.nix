# Mistakes in `host`, `github` and other options with one value per host. A name is part of the message,
# which contains the line to change.
{ lib }:
let
  settings = lib.mapAttrs (_: given: { services.runner-controller = given; });
  scopes = lib.genAttrs [ "one" "two" ] (name: {
    url = "https://github.com/acme/${name}";
    tokenFile = "/run/secrets/${name}";
  });
  # A pool in each of them.
  both = {
    ci.scope = "one";
    two = {
      scope = "two";
      labels = [ "two" ];
      image.directory = "/image";
      offset = 4;
      maxRunners = 2;
    };
  };
in
{
  refused =
    settings {
      "github: set exactly one of tokenFile and app" = {
        github.tokenFile = null;
      };
      "or app to the id and the key's file of a GitHub App" = {
        github.app = {
          id = 12345;
          keyFile = "/run/secrets/app.pem";
        };
      };
      "apiTokenFile: enable services.runner-controller.prometheus too" = {
        apiTokenFile = "/run/secrets/api";
      };
      "prometheus.openFirewall: set prometheus.enable too" = {
        prometheus.openFirewall = true;
      };

      "github: move it to scopes.NAME" = {
        github.url = "https://github.com/acme/widgets";
        inherit scopes;
        pools = both;
      };
      "pools.ci.scope: set it to \"one\" or \"two\", because the host has several scopes" = {
        inherit scopes;
      };
      "pools.ci.scope: set it to \"one\" or \"two\", because \"three\" is not in scopes" = {
        inherit scopes;
        pools.ci.scope = "three";
      };
      "pools.ci.scope: remove it, or move services.runner-controller.github to scopes.one" = {
        pools.ci.scope = "one";
      };
      "scopes.two: set scope = \"two\" in a pool, or remove it, because no pool uses it" = {
        inherit scopes;
        pools.ci.scope = "one";
      };
      "scopes.two.url: remove the scope, because services.runner-controller.scopes.one has the same url" =
        {
          scopes = scopes // {
            two = scopes.one;
          };
          pools = both;
        };
      "scopes.One: name it with 1 to 32 of a-z, 0-9 and dash" = {
        scopes.One = scopes.one;
      };
      "scopes.one: set exactly one of tokenFile and app" = {
        scopes.one.url = "https://github.com/acme/one";
      };
      "pools.ci.group: remove it, or set scopes.one.url to the organisation" = {
        inherit scopes;
        pools = lib.recursiveUpdate both { ci.group = "fast"; };
      };

      "pools.ci.demand: set \"webhook\" or \"fixed\", or github.url to a repository" = {
        github.url = "https://github.com/acme";
        pools.ci.demand = "queue";
      };
      "github.url: begin it with https://; it is \"github.com/acme\"" = {
        github.url = "github.com/acme";
      };
      "github.url: begin it with https://; it is \"git@github.com:acme/widgets.git\"" = {
        github.url = "git@github.com:acme/widgets.git";
      };
      "github.url: add the organisation, or the owner and the repository" = {
        github.url = "https://github.com/";
      };
      "github.url: end it after the repository: https://github.com/acme/widgets" = {
        github.url = "https://github.com/acme/widgets/settings/actions/runners";
      };
      "github.url: end it with the organisation, without orgs: https://github.com/acme;" = {
        github.url = "https://github.com/orgs/acme/repositories";
      };
      "github.url: use only letters, digits, dots, dashes and underscores" = {
        github.url = "https://github.com/acme/my widgets";
      };
      "github.url: add the enterprise: https://github.com/enterprises/ENTERPRISE" = {
        github.url = "https://github.com/enterprises";
      };
      "github.url: end it after the repository: https://github.com/enterprises/acme" = {
        github.url = "https://github.com/enterprises/acme/settings";
      };
      "github.app: set tokenFile instead, to a classic token with manage_runners:enterprise" = {
        github.url = "https://github.com/enterprises/acme";
        github.tokenFile = null;
        github.app = {
          id = 1;
          keyFile = "/run/secrets/app";
        };
      };
      "github.url: begin it with https://, because http:// sends the token in the clear" = {
        github.url = "http://github.example.com/acme";
      };
      "github.apiUrl: begin it with https://, because http:// sends the token in the clear" = {
        github.apiUrl = "http://198.51.100.7:8080";
      };
      "pools.ci.group: remove it, or set github.url to the organisation" = {
        pools.ci.group = "fast";
      };

      "services.runner-controller.reconcile: set it to 1 s to 10 min instead of \"11m\"" = {
        reconcile = "11m";
        pools.ci.timeouts.registration = "30m";
      };
      "github.timeout: set it to 1 s to 2 min instead of \"5m\"" = {
        github.timeout = "5m";
      };
    }
    // {
      "services.runner-controller.host: set it to 1 to 32 of a-z, 0-9 and dash, such as \"runner-box\", because \"Runner-Box\", from networking.hostName,".networking.hostName =
        "Runner-Box";
      "services.runner-controller.host: set it to 1 to 32 of a-z, 0-9 and dash, such as \"runner-01\", because \"\"".networking.hostName =
        "";
      "because \"a-name-of-a-host-that-is-much-longer\", from networking.hostName".networking.hostName =
        "a-name-of-a-host-that-is-much-longer";
      "such as \"box-example-org\", because \"box.example.org\" cannot begin".services.runner-controller.host =
        "box.example.org";
    }
    // lib.listToAttrs (
      map
        (
          schedule:
          lib.nameValuePair "rebootWhenDrained.schedule: write it in the notation of systemd.time(7), such as \"Sun 03:30\", because systemd does not parse \"${schedule}\"" {
            services.runner-controller.rebootWhenDrained = {
              enable = true;
              inherit schedule;
            };
          }
        )
        [
          ""
          "30 3 * * 0"
          "Sundays 03:30"
          "Sun 3:30am"
          "Sun 25:00"
          "every week"
        ]
    );

  warned = settings {
    "services.runner-controller.prometheus.openFirewall opens a port that answers only to this host" = {
      prometheus.openFirewall = true;
      prometheus.enable = true;
    };
    "The option `services.runner-controller.openMetricsFirewall'" = {
      openMetricsFirewall = true;
      prometheus.enable = true;
      prometheus.address = "10.0.0.5";
    };
  };
}
