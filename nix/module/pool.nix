# Options of one pool.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; }) absolutePath duration size;
  access = lib.importJSON ./access.json;
  time =
    default: description:
    mkOption {
      type = duration;
      inherit default description;
    };
  # A runner's part of a table of the kernel that all containers and the host share.
  part =
    what: least: most: default:
    mkOption {
      type = types.nullOr (types.ints.between least most);
      default = null;
      example = if default == 0 then least else 2 * default;
      description = ''
        Maximum number of ${what}; ${toString default} if it is null. docs/configuration.md says what a
        job sees that needs more. The host's own maxima grow with it.
      '';
    };
in
{
  options = {
    labels = mkOption {
      type = types.nonEmptyListOf types.str;
      example = [
        "self-hosted"
        "ci"
        "x64"
        "Linux"
      ];
      description = ''
        Labels that `runs-on:` selects. GitHub adds none, not even `self-hosted`, and ignores case.
        A change replaces idle runners.
      '';
    };

    scope = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "widgets";
      description = ''
        Name of the scope in `scopes` in which its runners register. A host with one scope needs none. After
        a change, idle runners are deregistered in the former scope and replaced, and jobs finish.
      '';
    };

    group = mkOption {
      type = types.str;
      default = "default";
      description = "Runner group by name, for organisations and enterprises.";
    };

    offset = mkOption {
      type = types.ints.between 0 65535;
      default = 0;
      example = 7;
      description = ''
        First place of the pool, from which its addresses and uids are counted. With several pools,
        give each one an offset that leaves room for `maxRunners`. It does not follow from the other
        pools, so a new pool moves no running container.
      '';
    };

    demand = mkOption {
      type = types.enum [
        "fixed"
        "webhook"
        "queue"
        "scale-set"
      ];
      default = "fixed";
      example = "webhook";
      description = ''
        Number of runners that listen. "fixed" is always `minIdle`. "webhook" is one for each job that
        waits in GitHub's queue, besides `minIdle`, and needs the option `webhook`. "queue" is the same for
        a repository whose queue the host reads every 30 s; it costs calls of GitHub's API. "scale-set" is one for
        each job that GitHub assigns to the pool's scale set, which the host creates; it costs about 70 calls an hour.
      '';
    };

    scaleSet = mkOption {
      type = types.nullOr (types.strMatching "[A-Za-z0-9][A-Za-z0-9._-]{0,63}");
      default = null;
      example = "runner-01-ci";
      description = ''
        Name of the pool's scale set at GitHub, with the demand "scale-set". The default is the host and the pool. A set
        has one pool of one host; hosts with the same labels have a set each. Another name costs a new set, and the old
        one stays until it is deleted at GitHub.
      '';
    };

    scaleDownAfter = mkOption {
      type = duration;
      default = "2m";
      description = ''
        With the demands "webhook", "queue" and "scale-set": time for which runners are kept that no waiting job needs any more. A longer
        time costs their memory, a shorter one a boot when the next job comes.
      '';
    };

    minIdle = mkOption {
      type = types.ints.between 0 999;
      default = 1;
      example = 2;
      description = ''
        Number of runners that are registered and listen: so many jobs start at once. Each one takes
        memory while it waits (some 15 MB, and the listener's 150 MB). 0 needs another demand
        than "fixed".
      '';
    };

    minSpare = mkOption {
      type = types.ints.between 0 999;
      default = if config.maxRunners > config.minIdle then 1 else 0;
      defaultText = lib.literalExpression "if maxRunners > minIdle then 1 else 0";
      description = ''
        Number of containers that are booted and unregistered; a spare becomes a runner with
        GitHub's next answer. Each one takes some 15 MB, and no registration at GitHub.
      '';
    };

    maxRunners = mkOption {
      type = types.ints.between 1 999;
      example = 7;
      description = ''
        Maximum number of containers, busy and booting ones included. Plan memory for all of them:
        `maxRunners` times `limits.memory`, less what never runs at the same time.
      '';
    };

    schedule = mkOption {
      type = types.listOf (types.submodule ./schedule.nix);
      default = [ ];
      example = lib.literalExpression ''
        [
          {
            days = [ "mon" "tue" "wed" "thu" "fri" ];
            hours = "08:00-18:00";
            timeZone = "Europe/Berlin";
            minIdle = 6;
          }
        ]
      '';
      description = ''
        Other numbers of runners at certain hours. Of entries that hold at the same time, the first one
        counts. Runners beyond the numbers end when they have no job.
      '';
    };

    image = {
      directory = mkOption {
        type = types.nullOr absolutePath;
        default = null;
        example = "/var/lib/runner-images/debian";
        description = ''
          Root filesystem to boot instead of NixOS, prepared by `runner-controller prepare-image`.
          It is not part of the system, so a deploy does not bring it.
        '';
      };

      runnerRoot = mkOption {
        type = absolutePath;
        default =
          if config.image.directory == null then "/var/lib/github-runner" else "/opt/actions-runner";
        defaultText = lib.literalExpression ''if image.directory == null then "/var/lib/github-runner" else "/opt/actions-runner"'';
        description = ''
          Directory of GitHub's runner in the container. It is always in memory, because the decoded
          config is written there.
        '';
      };

      modules = mkOption {
        type = types.listOf types.deferredModule;
        default = [ ];
        example = lib.literalExpression ''
          [
            ({ pkgs, ... }: {
              runner.packages = [ pkgs.gcc pkgs.protobuf ];
              runner.sudo = true;
            })
          ]
        '';
        description = ''
          NixOS modules for the containers of this pool, in addition to `nix/container.nix`, whose
          options are in `runner`. The system is evaluated and built with the host's. Each pool with
          a different image costs 2 to 3 s of evaluation, and nothing at run time.
        '';
      };

      specialArgs = mkOption {
        type = types.attrsOf types.raw;
        default = { };
        example = lib.literalExpression "{ inherit inputs; }";
        description = ''
          Further arguments of `modules`, which they can also use in `imports`.
        '';
      };
    };

    layer = {
      kind = mkOption {
        type = types.enum [
          "tmpfs"
          "disk"
        ];
        default = "tmpfs";
        description = ''
          Place of the writable layer. `tmpfs` is fastest and counts as the container's memory.
          `disk` is a filesystem in a file without a name in `/var/lib/runner-layers`. The layer
          ends with the runner.
        '';
      };

      size = mkOption {
        type = size;
        default = "2 GiB";
        example = "40 GiB";
        description = ''
          Hard size of the layer. With `tmpfs`, `limits.memory` must have room for it.
        '';
      };
    };

    limits = {
      memory = mkOption {
        type = size;
        default = "4 GiB";
        example = "12 GiB";
        description = ''
          `MemoryMax=` of one container, without swap. A process that is killed because memory is
          short is the job's loss, and other jobs of the host do not notice.
        '';
      };

      cpu = mkOption {
        type = types.nullOr (types.either types.ints.positive types.float);
        default = null;
        example = 4;
        description = ''
          Cores of one container, as `CPUQuota=`. Without it, containers share all cores fairly, and
          one job on an idle host uses all of them.
        '';
      };

      tasks = mkOption {
        type = types.ints.between 64 4194304;
        default = 4096;
        description = "Maximum number of processes and threads of one container.";
      };

      ioWeight = mkOption {
        type = types.ints.between 1 10000;
        default = 100;
        description = "Weight of one container's disk I/O under contention.";
      };

      openFiles = mkOption {
        type = types.ints.between 1024 1048576;
        default = 65536;
        description = "Maximum number of open files of one process.";
      };

      controlGroups = part "control groups of one container" 100 100000 500;
      controlGroupDepth = part "levels of control groups in one container" 10 64 24;
      connections = part "open connections of one container through the host" 64 1048576 8192;
      terminals = part "pseudo terminals of one container" 16 65536 1024;
      inotifyInstances = part "inotify instances of each user of a container" 128 1048576 1024;
      inotifyWatches = part "inotify watches of each user of a container" 4096 1073741824 524288;
      namespaces = part "namespaces of each kind, user namespaces excepted, of each user of a container" 128 65536 1024;
      userNamespaces = part "user namespaces of each user of a container" 0 65536 1024;
      pendingSignals = part "pending signals and POSIX timers of each user of a container" 64 1048576 1024;
    };

    total = {
      memory = mkOption {
        type = types.nullOr size;
        default = null;
        example = "64 GiB";
        description = ''
          Memory of the pool's slice: the maximum for all its containers together, at least that of
          one. Without it, they can take `maxRunners` times `limits`.
        '';
      };

      cpu = mkOption {
        type = types.nullOr (types.either types.ints.positive types.float);
        default = null;
        example = 12;
        description = "Cores for all containers of the pool together.";
      };

      tasks = mkOption {
        type = types.nullOr (types.ints.between 64 4194304);
        default = null;
        example = 20000;
        description = ''
          Maximum number of processes and threads of all containers of the pool together.
        '';
      };
    };

    timeouts = {
      boot = time "90s" "Timeout from the start until the container asks for a config.";
      registration = time "5m" ''
        Timeout from the config until GitHub shows the runner online; at least twice `reconcile`.
      '';
      spareAge = time "12h" "Age at which a spare is replaced.";
      idleAge = time "6h" ''
        Age at which an idle runner is replaced. GitHub lets idle registrations lapse after a time
        that it does not publish.
      '';
      job = time "6h" "Maximum duration of a job. A job that runs longer is ended, and fails.";
      stop = time "100s" ''
        Timeout from the stop of a unit to its end. The listener takes up to 90 s to tell GitHub that
        the job was cancelled.
      '';
    };

    egress = mkOption {
      type = types.enum [
        "internet"
        "listed"
        "none"
      ];
      default = "internet";
      description = ''
        Destinations of jobs. `internet` is every public address, `listed` is the resolvers and
        `allow`, and `none` is only `allow`, without DNS. Private addresses, the host and other
        containers are always closed, unless `allow` opens them. With `listed` and `none`, list
        GitHub's addresses yourself and keep them current.
      '';
    };

    allow = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [
        "10.0.0.5:443"
        "192.168.7.0/24:3128/tcp"
        "10.1.2.3:53/udp"
      ];
      description = "Further destinations, private addresses included: at most 64.";
    };

    docker = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Lets jobs use Docker in their own container. Docker's daemon starts with the first command.
        Its storage is part of `layer` and ends with the runner. The job's user can then become root
        in its container, and the container keeps six more capabilities and two more system calls
        than others. A NixOS image gets Docker by this option, and any other image must have it.
      '';
    };

    nix = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Lets jobs use Nix in their own container. The host's Nix daemon cannot be reached, and no
        job leaves anything for the next: a job's builds and downloads are in its `layer`. The first
        Nix command of a runner loads the image's paths, which takes 0.1 s for a thousand.
      '';
    };

    substituters = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "https://cache.example.org" ];
      description = ''
        Binary caches for Nix in jobs, besides cache.nixos.org. A cache on the LAN also needs an
        entry in `allow`.
      '';
    };

    trustedPublicKeys = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      description = ''
        Public keys of the caches. Keep secret keys off the host, because jobs that push to a cache
        bring the key.
      '';
    };

    proxy = mkOption {
      type = types.nullOr (
        types.submodule {
          options = {
            url = mkOption {
              type = types.str;
              example = "http://10.0.0.5:3128";
              description = "Address of the proxy. A private address also needs an entry in `allow`.";
            };
            noProxy = mkOption {
              type = types.listOf types.str;
              default = [
                "localhost"
                "127.0.0.1"
                "::1"
              ];
              description = "Destinations that are reached without the proxy, as in `NO_PROXY`.";
            };
          };
        }
      );
      default = null;
      example = lib.literalExpression ''{ url = "http://10.0.0.5:3128"; }'';
      description = ''
        HTTP proxy of listener and jobs, in the environment of every service of the container. Jobs
        get no credentials for it. A change replaces idle runners.
      '';
    };

    devices = mkOption {
      type = types.listOf (types.enum access.devices);
      default = [ ];
      example = [ "/dev/kvm" ];
      description = ''
        Devices of the host that every user of a container can open. Each one opens a driver of the
        host's kernel to jobs; docs/threat-model.md says what that means. A change replaces idle
        runners.
      '';
    };

    capabilities = mkOption {
      type = types.listOf (types.enum access.capabilities);
      default = [ ];
      example = [ "CAP_NET_RAW" ];
      description = ''
        Capabilities that root in a container keeps besides those of every container. They apply only
        to the container's own resources. With `docker`, all of them are kept. A change replaces idle
        runners.
      '';
    };

    environment = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        CARGO_NET_RETRY = "5";
      };
      description = ''
        Variables in the environment of listener and jobs. Every user of the host and every job can
        read them. The names of the runner, of systemd and of the dynamic linker are refused. A change
        replaces idle runners.
      '';
    };

    binds = mkOption {
      type = types.listOf (
        types.submodule {
          options = {
            from = mkOption {
              type = absolutePath;
              example = "/srv/models";
              description = "Directory on the host. Only root may be able to replace it.";
            };
            to = mkOption {
              type = absolutePath;
              example = "/mnt/models";
              description = "Its path in a container.";
            };
            readOnly = mkOption {
              type = types.bool;
              default = true;
              description = ''
                Keeps jobs from writing. Otherwise every job of the pool writes as the owner of the
                directory, without a bound of its size, and can change what later jobs find.
              '';
            };
          };
        }
      );
      default = [ ];
      example = lib.literalExpression ''[ { from = "/srv/models"; to = "/mnt/models"; } ]'';
      description = ''
        Directories of the host that all containers of the pool have, at most 16. All jobs share
        them. A change replaces idle runners.
      '';
    };

    workFolder = mkOption {
      type = absolutePath;
      default = "/home/runner/work";
      description = "Directory for checkouts in the container.";
    };
  };
}
