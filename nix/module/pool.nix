# One pool.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; }) duration size;
  time =
    default: description:
    mkOption {
      type = duration;
      inherit default description;
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
        What `runs-on:` asks for. GitHub adds none by itself, `self-hosted` neither, and ignores
        case. A change replaces idle runners.
      '';
    };

    group = mkOption {
      type = types.str;
      default = "default";
      description = "The runner group, by name. Organisations only.";
    };

    offset = mkOption {
      type = types.ints.between 0 65535;
      default = 0;
      example = 7;
      description = ''
        The pool's first place: its addresses and uids are counted from here. With several pools,
        give each one its own, with room for `maxRunners`. It is not computed from the other pools,
        so that adding a pool moves no living container.
      '';
    };

    minIdle = mkOption {
      type = types.ints.between 1 999;
      default = 1;
      example = 2;
      description = ''
        Runners kept registered and listening: so many jobs start at once. Each holds its idle
        memory (some 15 MB, and the listener's 150 MB) while it waits.
      '';
    };

    minSpare = mkOption {
      type = types.ints.between 0 999;
      default = if config.maxRunners > config.minIdle then 1 else 0;
      defaultText = lib.literalExpression "if maxRunners > minIdle then 1 else 0";
      description = ''
        Containers kept booted and not registered, one answer away from being a runner. Each holds
        some 15 MB, and no registration at GitHub.
      '';
    };

    maxRunners = mkOption {
      type = types.ints.between 1 999;
      example = 7;
      description = ''
        All containers together, busy ones and those being booted included. Plan memory for all of
        them: `maxRunners` times `limits.memory`, less what never runs at the same time.
      '';
    };

    image = {
      directory = mkOption {
        type = types.nullOr types.path;
        default = null;
        example = "/var/lib/runner-images/debian";
        description = ''
          Boot this root filesystem, prepared by `runner-controller prepare-image`, instead of
          NixOS. It is not part of the system: deploying does not bring it.
        '';
      };

      runnerRoot = mkOption {
        type = types.path;
        default =
          if config.image.directory == null then "/var/lib/github-runner" else "/opt/actions-runner";
        defaultText = lib.literalExpression ''if image.directory == null then "/var/lib/github-runner" else "/opt/actions-runner"'';
        description = ''
          The runner's own directory in the container: memory always, since its decoded config
          lands there.
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
          NixOS modules for the containers of this pool, on top of `nix/container.nix`, whose
          options are below `runner`. The system is evaluated and built with the host's, so each
          pool with an image of its own costs 2 to 3 s of evaluation; none costs any at run time.
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
          Where a job writes. `tmpfs` is quickest and counts as the container's memory; `disk` is a
          filesystem in an unlinked file below `/var/lib/runner-layers`. Both are gone with the life.
        '';
      };

      size = mkOption {
        type = size;
        default = "2 GiB";
        example = "40 GiB";
        description = "Its hard size. With `tmpfs`, `limits.memory` must have room for it.";
      };
    };

    limits = {
      memory = mkOption {
        type = size;
        default = "4 GiB";
        example = "12 GiB";
        description = ''
          `MemoryMax=` of one container, without swap. A process that is killed for want of memory
          is the job's loss; the host's other jobs do not notice.
        '';
      };

      cpu = mkOption {
        type = types.nullOr (types.either types.ints.positive types.float);
        default = null;
        example = 4;
        description = ''
          Cores, as `CPUQuota=`. Without it, containers share all cores fairly, and one job on an
          idle host has them all.
        '';
      };

      tasks = mkOption {
        type = types.ints.between 64 4194304;
        default = 4096;
        description = "Processes and threads of one container.";
      };

      ioWeight = mkOption {
        type = types.ints.between 1 10000;
        default = 100;
        description = "Its share of the disks when they are contended.";
      };

      openFiles = mkOption {
        type = types.ints.between 1024 1048576;
        default = 65536;
        description = "Open files of one process.";
      };
    };

    total = {
      memory = mkOption {
        type = types.nullOr size;
        default = null;
        example = "64 GiB";
        description = ''
          Caps of the pool's slice: what all its containers together may use, and never less than
          one of them may. Without caps, `maxRunners` times `limits` is what they can take.
        '';
      };

      cpu = mkOption {
        type = types.nullOr (types.either types.ints.positive types.float);
        default = null;
        example = 12;
        description = "Cores of all together.";
      };

      tasks = mkOption {
        type = types.nullOr (types.ints.between 64 4194304);
        default = null;
        example = 20000;
        description = "Processes and threads of all together.";
      };
    };

    timeouts = {
      boot = time "90s" "From the start to asking for a config.";
      registration = time "5m" ''
        From the config to being seen online at GitHub; at least twice `reconcile`.
      '';
      spareAge = time "12h" "A spare older than this is replaced.";
      idleAge = time "6h" ''
        An idle runner older than this is replaced. GitHub lets idle registrations lapse by itself,
        after a time it does not publish.
      '';
      job = time "6h" "A job that runs longer is cancelled.";
      stop = time "100s" ''
        From a stop to the end of the unit. The listener takes up to 90 s to tell GitHub that the
        job was cancelled.
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
        Where jobs get: every public address; the resolvers and `allow`; or `allow` alone, without
        DNS. Private addresses, the host and other containers are closed always, unless `allow`
        opens them. With `listed` and `none`, GitHub's addresses are yours to list and to keep.
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
      description = "Opened besides, private addresses too: at most 64.";
    };

    docker = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Let jobs run Docker, in their own container: its daemon starts with the first command, and
        what it stores counts into `layer` and dies with the life. The job's user may then become
        root in its container, and the pool's containers keep four capabilities and two system
        calls more than others. A NixOS image gets Docker by this; another must have it.
      '';
    };

    nix = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Give jobs a Nix of their container's own. The host's daemon is never reached, and nothing is
        kept from one job to the next: what a job builds or downloads lies in its `layer`. The first
        Nix command of a life loads the image's paths, 0.1 s for a thousand.
      '';
    };

    substituters = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "https://cache.example.org" ];
      description = ''
        Binary caches for that Nix, besides cache.nixos.org. One on the LAN must be in `allow` too.
      '';
    };

    trustedPublicKeys = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      description = "Their public keys. A secret key belongs to no host: jobs that push bring it.";
    };

    workFolder = mkOption {
      type = types.path;
      default = "/home/runner/work";
      description = "Where jobs check out, in the container.";
    };
  };
}
