{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; })
    absolutePath
    duration
    secretFile
    size
    ;
  cfg = config.services.runner-controller;
  # An IPv6 address before a port is in brackets.
  ofUrl = address: if lib.hasInfix ":" address then "[${address}]" else address;
in
{
  imports = [
    (lib.mkRenamedOptionModule
      [
        "services"
        "runner-controller"
        "openMetricsFirewall"
      ]
      [
        "services"
        "runner-controller"
        "prometheus"
        "openFirewall"
      ]
    )
  ];

  options.services.runner-controller = import ./order.nix { inherit lib; } // {
    enable = lib.mkEnableOption (
      lib.trim ''
        the runner controller, which keeps booted containers registered at GitHub as self-hosted
        runners, gives each one job, and destroys it
      ''
    );

    package =
      lib.mkPackageOption pkgs "runner-controller" {
        default = null;
        extraDescription = ''
          It also checks the configuration and renders the units while the system is built. A new
          version restarts the daemon, and no job notices.
        '';
      }
      // {
        default = pkgs.runner-controller or (pkgs.callPackage ../packages/runner-controller.nix { });
        defaultText = lib.literalExpression "pkgs.runner-controller or (pkgs.callPackage ./nix/packages/runner-controller.nix { })";
      };

    host = mkOption {
      type = types.str;
      default = config.networking.hostName;
      defaultText = lib.literalExpression "config.networking.hostName";
      example = "runner-01";
      description = ''
        Name of this host: 1 to 32 of a-z, 0-9 and dash. Its runners are named `<host>-<pool>-<slot>-…`. The daemon deletes only
        runners at GitHub whose names begin so; two hosts of one scope therefore need different
        names. Run `cleanup-github-runners` before a change, because the new name does not cover old
        registrations.
      '';
    };

    github = (import ./scope.nix { inherit lib; }).options;

    scopes = mkOption {
      type = types.attrsOf (types.submodule ./scope.nix);
      default = { };
      example = lib.literalExpression ''
        {
          widgets = {
            url = "https://github.com/acme/widgets";
            tokenFile = config.age.secrets.github-widgets.path;
          };
          umbrella = {
            url = "https://github.com/umbrella";
            tokenFile = config.age.secrets.github-umbrella.path;
          };
        }
      '';
      description = ''
        Several scopes by name, instead of `github`: repositories, organisations and enterprises, each with
        its own credentials, limits and errors. Each pool names its scope (`pools.<name>.scope`). A name
        has 1 to 32 of a-z, 0-9 and dash and begins with a letter. Each scope costs its own calls to GitHub:
        one conditional request for each `reconcile`, which is free while nothing changed.
      '';
    };

    network = {
      block = mkOption {
        type = types.str;
        default = "10.200.0.0/16";
        description = ''
          Private address block that this host uses for nothing else. Each slot takes four
          addresses. A change gives new addresses to runners that start afterwards. Running ones
          keep their addresses and their rules until they end.
        '';
      };

      resolvers = mkOption {
        type = types.listOf types.str;
        example = [
          "9.9.9.9"
          "1.1.1.1"
        ];
        description = ''
          The only DNS servers that jobs can reach: one to three IPv4 addresses. Loopback is
          refused, because in a container it is the container itself.
        '';
      };

      uidBase = mkOption {
        type = types.ints.between 524288 1879048191;
        default = 268435456;
        description = ''
          First host uid of containers, which take 65,536 for each slot. It must be a multiple of
          65,536, outside of `subUidRanges`.
        '';
      };
    };

    runner.package = lib.mkPackageOption pkgs "github-runner" {
      example = "inputs.nixpkgs-runner.legacyPackages.x86_64-linux.github-runner";
      extraDescription = ''
        It is GitHub's runner in every pool with a NixOS image. GitHub refuses releases that are some
        weeks old, so take it from an input that you update often. A change replaces idle runners,
        and running jobs keep theirs.
      '';
    };

    pools = mkOption {
      type = types.attrsOf (types.submodule ./pool.nix);
      default = { };
      example = lib.literalExpression ''
        {
          ci = {
            labels = [ "self-hosted" "ci" "nix" "x64" "Linux" ];
            minIdle = 2;
            maxRunners = 7;
            limits = { memory = "12 GiB"; cpu = 4; };
          };
        }
      '';
      description = ''
        Pools by name. A pool is runners of one kind, and keeps its own runners warm. Its name has 1
        to 8 of a-z and 0-9 and begins with a letter.
      '';
    };

    reconcile = mkOption {
      type = duration;
      default = "60s";
      description = ''
        Interval between full reconciles, which find what a lost signal hid. Each costs one
        conditional request at GitHub, which is free while nothing changed.
      '';
    };

    layerDir = mkOption {
      type = absolutePath;
      default = "/var/lib/runner-layers";
      description = ''
        Directory of layers with `kind = "disk"`. Jobs write there, so use a separate disk if the
        system's disk is small or slow.
      '';
    };

    reserve = {
      disk = mkOption {
        type = types.nullOr size;
        default = null;
        example = "5 GiB";
        description = ''
          Free space to keep where the records and the layers on disk are. With less, no new runner
          starts. If a pool has layers on disk, the largest of them must fit besides. The default is
          a twentieth of the file system, at most 256 MiB.
        '';
      };

      memory = mkOption {
        type = types.nullOr size;
        default = null;
        example = "2 GiB";
        description = ''
          Available memory to keep. With less, no new runner starts, and jobs continue. The default
          is a twentieth of the host's memory, at most 1 GiB.
        '';
      };
    };

    history = {
      age = mkOption {
        type = types.nullOr duration;
        default = null;
        example = "30days";
        description = ''
          Time for which the records keep runners that ended, 1 day to 10 years. The default is
          90 days.
        '';
      };

      runners = mkOption {
        type = types.nullOr (types.ints.between 100 2000000);
        default = null;
        example = 50000;
        description = ''
          Maximum number of ended runners in the records. Each takes about 0.7 KiB of disk. The
          default is 200,000.
        '';
      };
    };

    logs = {
      keep = mkOption {
        type = types.nullOr (
          types.enum [
            "failed"
            "all"
            "none"
          ]
        );
        default = null;
        example = "all";
        description = ''
          Runners whose listener's log files are kept after their end, in `/var/log/runner-controller`,
          with secrets removed: those that `failed`, `all` or `none`. The default is `failed`. Keeping
          them takes up to 1 MiB on disk for each of these runners, and usually a few KiB.
        '';
      };

      space = mkOption {
        type = types.nullOr size;
        default = null;
        example = "5 GiB";
        description = ''
          Maximum space of these log files on disk, at least 16 MiB. The oldest ones go first. The
          default is 1 GiB.
        '';
      };

      age = mkOption {
        type = types.nullOr duration;
        default = null;
        example = "30days";
        description = ''
          Time for which these log files are kept, 1 day to 365 days. The default is 14 days.
        '';
      };
    };

    operators = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "alice" ];
      description = ''
        Users that may call `runner-status` and `runner-controller drain` without root. They can
        delay jobs and read the kept log files of listeners, and they cannot read a secret.
      '';
    };

    prometheus = {
      enable = lib.mkEnableOption (
        lib.trim ''
          `/metrics`, `/health` and `/status` over TCP. They are read-only, need no password, and
          contain what `runner-status` shows
        ''
      );

      address = mkOption {
        type = types.str;
        default = "127.0.0.1";
        example = "10.0.0.5";
        description = "Address to listen on. Containers cannot reach any address of the host.";
      };

      port = mkOption {
        type = types.port;
        default = 9817;
        description = "Port to listen on.";
      };

      openFirewall = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = ''
          Opens `port` in the host's firewall, for every machine that reaches this host. The names of
          repositories and workflows are visible there.
        '';
      };

      alerts = mkOption {
        type = types.bool;
        default = true;
        description = ''
          Adds the alert rules of `monitoring/alerts.yml` to a Prometheus on this host. For a Prometheus
          elsewhere, give it that file. Each alert has a page in `docs/runbooks`.
        '';
      };

      dashboard = mkOption {
        type = types.bool;
        default = true;
        description = ''
          Adds the dashboard of `monitoring/dashboards` to a Grafana on this host, whose data source is a
          Prometheus. For a Grafana elsewhere, import that file.
        '';
      };

      target = mkOption {
        type = types.str;
        readOnly = true;
        default = "${ofUrl cfg.prometheus.address}:${toString cfg.prometheus.port}";
        defaultText = lib.literalMD "`address` and `port` with a colon between them";
        description = ''
          Address and port for a Prometheus elsewhere. A Prometheus on this host scrapes it without
          further configuration.
        '';
      };
    };

    apiTokenFile = mkOption {
      type = types.nullOr secretFile;
      default = null;
      example = lib.literalExpression "config.age.secrets.runner-controller-api.path";
      description = ''
        File that contains a token that you make, 20 characters or more, never in the Nix store. A
        client with it (`Authorization: Bearer …`) can drain and undrain this host over
        `prometheus.port`. Without this option, that port is read-only.
      '';
    };

    notify = mkOption {
      type = types.nullOr (
        types.submodule {
          options = {
            command = mkOption {
              type = types.nonEmptyListOf types.str;
              example = lib.literalExpression ''[ (lib.getExe pkgs.my-notifier) "ops" ]'';
              description = ''
                Program, an absolute path, and its arguments. It reads one JSON document from its standard
                input, and has a user that exists only while it runs.
              '';
            };
            events = mkOption {
              type = types.nullOr (
                types.nonEmptyListOf (
                  types.enum [
                    "unhealthy"
                    "pool_stopped"
                    "version_ends"
                    "drained"
                  ]
                )
              );
              default = null;
              example = [ "pool_stopped" ];
              description = "Events of which it is told; all by default.";
            };
            timeout = mkOption {
              type = types.str;
              default = "30s";
              example = "10s";
              description = "Maximum run time, from one second to ten minutes.";
            };
          };
        }
      );
      default = null;
      example = lib.literalExpression ''
        { command = [ (lib.getExe pkgs.my-notifier) ]; }
      '';
      description = ''
        Runs a command for events of this host, at most 30 times in an hour.
        `docs/operations.md` has the events and the document. A secret of the command belongs in
        `systemd.services."runner-controller-notify@".serviceConfig.LoadCredential`.
      '';
    };

    webhook = mkOption {
      type = types.nullOr (
        types.submodule {
          options = {
            port = mkOption {
              type = types.port;
              default = 9818;
              description = "Port of 127.0.0.1 to take deliveries on. A proxy with TLS passes them on.";
            };
            secretFile = mkOption {
              type = secretFile;
              example = lib.literalExpression "config.age.secrets.runner-controller-webhook.path";
              description = ''
                File that contains the secret of the hook, one line of 16 characters or more. It must be
                readable by root, and never be in the Nix store.
              '';
            };
            nextSecretFile = mkOption {
              type = types.nullOr secretFile;
              default = null;
              example = lib.literalExpression "config.age.secrets.runner-controller-webhook-next.path";
              description = "File that contains a further secret, while you change the hook's secret at GitHub.";
            };
            nginx = mkOption {
              type = types.nullOr (
                types.submodule {
                  options = {
                    virtualHost = mkOption {
                      type = types.strMatching "[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?";
                      example = "runners.example.org";
                      description = "Name under which GitHub reaches this host.";
                    };
                    path = mkOption {
                      type = types.strMatching "/[A-Za-z0-9._~/-]*";
                      default = "/webhook";
                      description = "Path of the hook's address. Other paths of the virtual host are answered with 404.";
                    };
                    openFirewall = mkOption {
                      type = types.bool;
                      default = false;
                      description = "Opens the ports 80 and 443 of this host's firewall, the first one for ACME.";
                    };
                  };
                }
              );
              default = null;
              example = lib.literalExpression ''
                { virtualHost = "runners.example.org"; openFirewall = true; }
              '';
              description = ''
                Runs nginx with TLS in front of the listener, with a certificate by ACME. It needs
                `security.acme.acceptTerms` and `security.acme.defaults.email`. Further settings of the
                virtual host belong in `services.nginx.virtualHosts`.
              '';
            };
          };
        }
      );
      default = null;
      example = lib.literalExpression ''
        { secretFile = config.age.secrets.runner-controller-webhook.path; }
      '';
      description = ''
        Takes GitHub's deliveries of `workflow_job`, so that this host shows which jobs wait, and why.
        They cost no calls of GitHub's API. `docs/demand.md` says how to make the hook.
      '';
    };

    refuseTokensInEtc = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = ''
        Fails the build if a file of `/etc` contains a GitHub token or a private key, because every
        user of the host can read it in the Nix store. The search reads all of `/etc` in each build that
        changes it. Turn it off for a host whose `/etc` has a private key for tests.
      '';
    };

    settings = mkOption {
      inherit (pkgs.formats.toml { }) type;
      default = { };
      example = {
        pools.ci.limits.open_files = 131072;
      };
      description = ''
        The configuration file, for keys that have no option. The other options fill it in, and a
        value here wins. The build checks it and reports every mistake.
      '';
    };

    build = mkOption {
      type = types.lazyAttrsOf types.unspecified;
      internal = true;
      description = ''
        Results of the options: `configFile`, `hostFiles`, `units` and `containers.<pool>`.
      '';
    };
  };
}
