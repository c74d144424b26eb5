# The NixOS system of a container that runs one job: GitHub's runner as its only service, a user for
# jobs, tools, and little else. A pool's `image.modules` extend it.
#
# `runner-controller prepare-image` installs the same runner's unit, scripts, journal bounds and masks
# into any other image (runner-controller/guest). This file holds the differences of NixOS.
{
  config,
  lib,
  modulesPath,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.runner;
  guest = ../runner-controller/guest;
  versions = import ./runner-versions.nix { inherit lib; };

  scripts = pkgs.runCommand "github-runner-scripts" { } ''
    install -D -m 0755 ${guest + "/start"} "$out/start"
    install -D -m 0755 ${guest + "/job-started.sh"} "$out/job-started.sh"
  '';
  unit = builtins.replaceStrings [ "/usr/lib/github-runner" ] [ "${scripts}" ] (
    builtins.readFile (guest + "/github-runner.service")
  );

  isUnit = line: line != "" && !lib.hasPrefix "#" line;
  # In other images, D-Bus starts logind for its first client. Here the profile would start it at boot.
  masked = builtins.filter isUnit (lib.splitString "\n" (builtins.readFile (guest + "/masked"))) ++ [
    "systemd-logind.service"
    # NixOS has no presets, so it starts these everywhere. No job uses them.
    "lastlog2-import.service"
    "linger-users.service"
    "systemd-ask-password.socket"
    "systemd-bootctl.socket"
    "systemd-coredump.socket"
    "systemd-creds.socket"
    "systemd-factory-reset.socket"
    "systemd-importd.socket"
    "systemd-journalctl.socket"
    "systemd-journald-audit.socket"
    "systemd-machined.socket"
    "systemd-mute-console.socket"
    "systemd-pcrextend.socket"
    "systemd-pcrlock.socket"
    "systemd-repart.socket"
  ];
  # Ids of the job's user, to which the launcher maps shared directories
  # (runner-controller/src/privileged/rootfs/binds.rs). GitHub's images use the same.
  ids = {
    uid = 1001;
    gid = 1001;
  };
  user = config.users.users.runner;
  service = config.systemd.services.github-runner;
  runtimeDir = "/run/user/${toString ids.uid}";
  # Its name before NixOS 26.11.
  builderCommands =
    if options.system ? systemBuilderCommands then "systemBuilderCommands" else "extraSystemBuilderCmds";
in
{
  imports = [ (modulesPath + "/profiles/minimal.nix") ];

  options.runner = {
    package = lib.mkPackageOption pkgs "github-runner" {
      extraDescription = ''
        Only its `bin/Runner.Listener` is called, with a config for one job. The host's
        `services.runner-controller.runner.package` takes precedence over the default.
      '';
    };

    root = mkOption {
      type = types.path;
      default = "/var/lib/github-runner";
      description = "Directory in which the listener writes its decoded config.";
    };

    workFolder = mkOption {
      type = types.path;
      default = "/home/runner/work";
      description = "Directory for checkouts.";
    };

    packages = mkOption {
      type = types.listOf types.package;
      default = [ ];
      example = lib.literalExpression "[ pkgs.gcc pkgs.protobuf ]";
      description = ''
        More programs on a job's `PATH`. The host's store has them once for all containers, and they
        cost nothing until they are read.
      '';
    };

    commonTools = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Puts common tools of workflows on a job's `PATH`: git, curl, jq, archivers, `cachix` and
        others. A push to a cache needs a token from the job's secrets.
      '';
    };

    docker = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Docker's daemon in the container, started by its first client. The pool's `docker` sets it.
      '';
    };

    nix = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Nix daemon in the container, started by its first client. The pool's `nix` sets it.
      '';
    };

    unit = mkOption {
      type = types.str;
      internal = true;
      readOnly = true;
      default = unit;
      description = "Unit of the runner, without the additions of NixOS.";
    };

    sudo = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Lets a job become root in its container without a password. That root is an unprivileged user
        on the host and ends with the job. It reaches more of the kernel than an ordinary user does.
      '';
    };
  };

  config = {
    assertions = [
      {
        assertion = user.uid == ids.uid && config.users.groups.${user.group}.gid == ids.gid;
        message = "remove uid, group and gid of users.users.runner and users.groups.runner from modules, because shared directories are mapped to uid ${toString ids.uid} and gid ${toString ids.gid}.";
      }
      {
        assertion = !lib.any (lib.hasPrefix "Exec") (lib.attrNames service.serviceConfig);
        message = "remove preStart, postStart and every Exec…= of systemd.services.github-runner from modules, because systemd asks the host for the config once for each command of the unit; use another service.";
      }
      {
        assertion = config.nixpkgs.config == { };
        message = "remove nixpkgs.config from modules and set it on the host, because containers use the host's package set; nixpkgs.overlays work here.";
      }
      {
        assertion = !lib.any (runner: runner.enable) (lib.attrValues config.services.github-runners);
        message = "remove services.github-runners from modules, because the container already runs the pool's runner.";
      }
      {
        assertion = !config.system.etc.overlay.enable;
        message = "set system.etc.overlay.enable = false, or remove profiles/perlless.nix from modules, because a container does not have an initrd that mounts /etc.";
      }
      {
        assertion = !lib.versionOlder (lib.getVersion cfg.package) versions.minimum;
        message = ''
          GitHub refuses version ${lib.getVersion cfg.package} of its runner. Run `nix flake update nixpkgs-runner`, or
          set services.runner-controller.runner.package to a github-runner of ${versions.minimum} or later.
        '';
      }
    ];

    boot.isNspawnContainer = true;
    # The host sets the container's name and addresses. An empty name here fits every slot.
    networking = {
      hostName = "";
      useDHCP = false;
      useHostResolvConf = false;
      # The launcher writes /etc/resolv.conf.
      resolvconf.enable = false;
      # The host filters, because a job that is root could change rules in here.
      firewall.enable = false;
    };

    users = {
      mutableUsers = false;
      allowNoPasswordLogin = true;
      users.runner = {
        inherit (ids) uid;
        group = "runner";
        isNormalUser = true;
        home = "/home/runner";
        createHome = true;
        shell = pkgs.bashInteractive;
        extraGroups = lib.optional cfg.docker "docker";
      };
      groups.runner.gid = ids.gid;
    };

    security.sudo = {
      enable = cfg.sudo;
      extraRules = [
        {
          users = [ "runner" ];
          commands = [
            {
              command = "ALL";
              options = [
                "NOPASSWD"
                "SETENV"
              ];
            }
          ];
        }
      ];
    };

    systemd.packages = [
      (pkgs.writeTextDir "lib/systemd/system/github-runner.service" cfg.unit)
    ]
    ++ lib.optional cfg.nix (
      pkgs.writeTextDir "lib/systemd/system/nix-registration.service" (
        builtins.readFile (guest + "/nix/nix-registration.service")
      )
    );
    systemd.services.github-runner = {
      overrideStrategy = "asDropin";
      wantedBy = [ "multi-user.target" ];
      # A job inherits the listener's PATH, so it is a user's and not a unit's.
      enableDefaultPath = false;
      environment = {
        XDG_RUNTIME_DIR = runtimeDir;
        PATH = lib.mkForce "/run/wrappers/bin:/home/runner/.local/bin:/run/current-system/sw/bin";
        LANG = "C.UTF-8";
        RUNNER_HOME = cfg.root;
        RUNNER_LISTENER = lib.getExe' cfg.package "Runner.Listener";
        # nixpkgs' wrapper changes its directory to the store, and the listener writes its files here.
        RUNNER_ROOT = cfg.root;
        # nix-ld sets these in /etc/profile, which a unit does not read.
        NIX_LD = "/run/current-system/sw/share/nix-ld/lib/ld.so";
        NIX_LD_LIBRARY_PATH = "/run/current-system/sw/share/nix-ld/lib";
      }
      // lib.optionalAttrs cfg.nix { NIX_REMOTE = "daemon"; };
    };
    # The unit that removes it at the end of a boot is masked, and logins are refused while it exists. The
    # runner's unit cannot do this, because systemd asks the host for the config once for each command of it.
    systemd.services.remove-nologin = {
      description = "Permit logins";
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        Type = "oneshot";
        ExecStart = "${lib.getExe' pkgs.coreutils "rm"} -f /run/nologin";
      };
    };

    systemd.tmpfiles.settings."10-github-runner" = {
      # With a layer on disk, this is a mount in memory, which belongs to root when the container boots.
      ${cfg.root}.d = {
        mode = "0700";
        user = "runner";
        group = "runner";
      };
      ${cfg.workFolder}.d = {
        mode = "0755";
        user = "runner";
        group = "runner";
      };
      ${runtimeDir}.d = {
        mode = "0700";
        user = "runner";
        group = "runner";
      };
      # Many repositories have this shebang, and so has our job-started hook.
      "/bin/bash"."L+".argument = "${pkgs.bashInteractive}/bin/bash";
    };

    # Actions download programs that were linked for other distributions.
    programs.nix-ld = {
      enable = true;
      libraries = [ pkgs.icu ];
    };

    # The launcher binds a directory of the layer as its storage.
    virtualisation.docker = lib.mkIf cfg.docker {
      enable = true;
      enableOnBoot = false;
    };
    # A container may raise its limit, as with --ulimit memlock=-1:-1.
    systemd.services.docker = lib.mkIf cfg.docker {
      serviceConfig.LimitMEMLOCK = "8M:infinity";
    };

    programs.git.enable = true;
    environment.systemPackages =
      cfg.packages
      ++ lib.optionals cfg.commonTools (
        with pkgs;
        [
          curl
          file
          gh
          git-lfs
          gnumake
          gnupatch
          gnutar
          gzip
          jq
          openssh
          openssl
          perl
          python3
          rsync
          unzip
          wget
          which
          xz
          zip
          zstd
        ]
        # cachix is written in Haskell, and a sparse copy of nixpkgs may lack the generated package list.
        ++ lib.optional (haskellPackages ? retry) cachix
      );

    environment.etc."systemd/journald.conf.d/50-runner.conf".source = guest + "/journald.conf";

    # A container for one job does not need these. A mask also works for a unit that does not exist.
    systemd.units = lib.genAttrs masked (_: {
      enable = lib.mkForce false;
    });
    # Elsewhere logind, which is masked here, brings the system bus.
    systemd.sockets.dbus.wantedBy = [ "sockets.target" ];
    systemd.enableEmergencyMode = false;
    systemd.oomd.enable = false;
    # It is for hosts whose root file system must be unmounted.
    systemd.shutdownRamfs.enable = false;
    services.timesyncd.enable = false;
    system.switch.enable = false;
    # After the line with the interpreter.
    system.${builderCommands} = ''
      sed -i '1r ${./early-stop.sh}' "$out/init"
    '';

    # The host's Nix daemon cannot be reached from here. The launcher writes pool.conf for the container's
    # daemon, and puts an overlay of the runner's layer on the store.
    nix = {
      enable = cfg.nix;
      channel.enable = false;
      settings = {
        experimental-features = [
          "nix-command"
          "flakes"
        ];
        sandbox = true;
      };
    };
    environment.variables.NIX_REMOTE = lib.mkIf (!cfg.nix) (lib.mkForce "");
    boot.nixStoreMountOpts = lib.mkIf cfg.nix (
      lib.mkForce [
        "nodev"
        "nosuid"
      ]
    );
    systemd.sockets.nix-daemon.unitConfig = lib.mkIf cfg.nix {
      ConditionPathExists = "/etc/nix/pool.conf";
    };
    systemd.services.nix-registration = lib.mkIf cfg.nix {
      overrideStrategy = "asDropin";
      serviceConfig.ExecSearchPath = lib.makeBinPath [ config.nix.package ];
    };
    systemd.services.nix-daemon = lib.mkIf cfg.nix {
      requires = [ "nix-registration.service" ];
      after = [ "nix-registration.service" ];
      environment.NIX_USER_CONF_FILES = "/etc/nix/pool.conf";
      # A build that takes too much memory ends, and not the listener.
      serviceConfig = {
        OOMPolicy = "continue";
        OOMScoreAdjust = 500;
      };
    };
  };
}
