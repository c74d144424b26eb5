{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; }) duration size;
  cfg = config.services.runner-controller;
in
{
  options.services.runner-controller = {
    enable = lib.mkEnableOption (
      lib.trim ''
        the runner controller: it keeps containers booted and registered at GitHub as self-hosted
        runners, gives each one job, and destroys it
      ''
    );

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ../packages/runner-controller.nix { };
      defaultText = lib.literalExpression "pkgs.runner-controller";
      description = ''
        The program. It also checks the configuration and renders the units while the system is
        built. A new version restarts the daemon, which no job notices.
      '';
    };

    host = mkOption {
      type = types.strMatching "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?";
      default = config.networking.hostName;
      defaultText = lib.literalExpression "config.networking.hostName";
      example = "runner-01";
      description = ''
        This host's id. Its runners are named `<host>-<pool>-<slot>-…`, and it deletes no runner at
        GitHub whose name begins otherwise, so no two hosts of one scope may share it. After a
        change the old registrations are nobody's: run `cleanup-github-runners` before it.
      '';
    };

    github = {
      url = mkOption {
        type = types.strMatching "https?://[^/]+/[^/]+(/[^/]+)?/?";
        example = "https://github.com/acme/widgets";
        description = ''
          The repository or the organisation whose jobs are taken, as copied from the browser.
        '';
      };

      tokenFile = mkOption {
        type = types.nullOr types.path;
        default = null;
        example = lib.literalExpression "config.age.secrets.github-runner.path";
        description = ''
          A file that holds a GitHub token and nothing else, readable by root; never in the Nix
          store. The token needs *Self-hosted runners: write* for an organisation, or
          *Administration: write* for a repository. systemd hands it to the daemon as a credential,
          and no container ever sees it. If agenix makes the file, a new secret restarts the daemon.
        '';
      };

      app = mkOption {
        type = types.nullOr (
          types.submodule {
            options = {
              id = mkOption {
                type = types.either types.ints.positive (types.strMatching "[A-Za-z0-9.]{1,64}");
                example = "Iv23liExample";
                description = "The App's client id or its number, from its settings page.";
              };
              keyFile = mkOption {
                type = types.path;
                example = lib.literalExpression "config.age.secrets.github-app.path";
                description = ''
                  A file that holds a private key of the App, in PEM as GitHub gave it, readable by root; never
                  in the Nix store.
                '';
              };
            };
          }
        );
        default = null;
        example = lib.literalExpression ''
          {
            id = "Iv23liExample";
            keyFile = config.age.secrets.github-app.path;
          }
        '';
        description = ''
          A GitHub App in place of `tokenFile`: installed where the runners are, with *Self-hosted
          runners: write* (organisation) or *Administration: write* (repository). The daemon asks for
          tokens that last an hour and open nothing but these runners. It costs two calls an hour.
        '';
      };

      apiUrl = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "https://github.example.com/api/v3";
        description = "The API's base. Only proxies need it; by default it follows from `url`.";
      };

      apiVersion = mkOption {
        type = types.strMatching "[0-9]{4}-[0-9]{2}-[0-9]{2}";
        default = "2022-11-28";
        description = "The `X-GitHub-Api-Version` that requests carry.";
      };

      timeout = mkOption {
        type = duration;
        default = "15s";
        description = "How long one request may take. A slow answer holds up only its own slot.";
      };
    };

    network = {
      block = mkOption {
        type = types.strMatching "[0-9.]+/[0-9]+";
        default = "10.200.0.0/16";
        description = ''
          A private block that this host uses for nothing else. Each place takes four addresses of
          it. A change moves the addresses of runners that start afterwards; those that live keep
          theirs, but lose their way out: drain first.
        '';
      };

      resolvers = mkOption {
        type = types.listOf types.str;
        example = [
          "9.9.9.9"
          "1.1.1.1"
        ];
        description = ''
          One to three IPv4 addresses: the only DNS servers that jobs may reach. Never loopback,
          which in a container is the container itself.
        '';
      };

      uidBase = mkOption {
        type = types.ints.between 524288 1879048191;
        default = 268435456;
        description = ''
          First of the host uids that containers take: 65,536 for each place. A multiple of 65,536,
          clear of `subUidRanges`.
        '';
      };
    };

    runner.package = mkOption {
      type = types.package;
      default = pkgs.github-runner;
      defaultText = lib.literalExpression "pkgs.github-runner";
      example = lib.literalExpression "inputs.nixpkgs-runner.legacyPackages.x86_64-linux.github-runner";
      description = ''
        GitHub's runner, in every pool whose image is NixOS. GitHub refuses releases that are some
        weeks old, so take it from an input that you move often. A change gives idle containers a
        new system; jobs that run keep theirs.
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
        Runners of one kind each: 1 to 8 of a-z and 0-9, beginning with a letter. Every pool keeps
        its own runners warm.
      '';
    };

    reconcile = mkOption {
      type = duration;
      default = "60s";
      description = ''
        How often everything is compared in full, as a net under systemd's signals. Each costs one
        conditional request at GitHub, which is free as long as nothing changed.
      '';
    };

    layerDir = mkOption {
      type = types.path;
      default = "/var/lib/runner-layers";
      description = ''
        Where layers with `kind = "disk"` are. Jobs write there: give it a disk of its own if the
        system's is small or slow.
      '';
    };

    reserve = {
      disk = mkOption {
        type = types.nullOr size;
        default = null;
        example = "5 GiB";
        description = ''
          Room to keep free where the records and the layers on disk are. While there is less, no new
          runner starts; where a pool has layers on disk, the largest of them must fit besides. By
          default a twentieth of the file system, and at most 256 MiB.
        '';
      };

      memory = mkOption {
        type = types.nullOr size;
        default = null;
        example = "2 GiB";
        description = ''
          Memory to keep available. While there is less, no new runner starts; jobs run on. By default
          a twentieth of the host's, and at most 1 GiB.
        '';
      };
    };

    operators = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "alice" ];
      description = ''
        Users who may ask the daemon without being root: `runner-status` and `runner-controller
        drain`. They may delay jobs, and read no secret.
      '';
    };

    prometheus = {
      enable = lib.mkEnableOption (
        lib.trim ''
          `/metrics`, `/health` and `/status` over TCP. They are read-only and need no password; what
          they tell is what `runner-status` shows
        ''
      );

      address = mkOption {
        type = types.str;
        default = "127.0.0.1";
        example = "10.0.0.5";
        description = "The address to listen on. Containers cannot reach any of the host's.";
      };

      port = mkOption {
        type = types.port;
        default = 9817;
        description = "The port to listen on.";
      };

      target = mkOption {
        type = types.str;
        readOnly = true;
        default = "${cfg.prometheus.address}:${toString cfg.prometheus.port}";
        defaultText = lib.literalExpression ''"''${address}:''${toString port}"'';
        description = "What to scrape. A Prometheus on this very host does so by itself.";
      };
    };

    apiTokenFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "config.age.secrets.runner-controller-api.path";
      description = ''
        A file with a token of your own, 20 characters or more. Who shows it
        (`Authorization: Bearer …`) may drain and undrain this host over `prometheus.port`; without
        it, what listens there only shows. Never in the Nix store.
      '';
    };

    openMetricsFirewall = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Lets everybody who reaches this host reach `prometheus.port`. The names of repositories and
        workflows are shown there.
      '';
    };

    settings = mkOption {
      inherit (pkgs.formats.toml { }) type;
      default = { };
      example = {
        pools.ci.limits.open_files = 131072;
      };
      description = ''
        The configuration file itself, for keys that have no option. The options above fill it in;
        what is written here wins. It is checked while the system is built, and every mistake is
        reported.
      '';
    };

    build = mkOption {
      type = types.lazyAttrsOf types.unspecified;
      internal = true;
      description = ''
        What the options come to: `configFile`, `hostFiles` and `containers.<pool>`.
      '';
    };
  };
}
