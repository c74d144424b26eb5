# The NixOS system of a container that runs one job: GitHub's runner as its only service, a user for
# jobs, tools, and little else. A pool's `image.modules` come on top of it.
#
# The runner's unit, its scripts, the journal's bounds and the units to mask are the files that
# `runner-controller prepare-image` installs into any other image (runner-controller/guest); here is
# only what NixOS does differently.
{
  config,
  lib,
  modulesPath,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.runner;
  guest = ../runner-controller/guest;
  versions = import ./runner-versions.nix;

  scripts = pkgs.runCommand "github-runner-scripts" { } ''
    install -D -m 0755 ${guest + "/start"} "$out/start"
    install -D -m 0755 ${guest + "/job-started.sh"} "$out/job-started.sh"
  '';
  unit = builtins.replaceStrings [ "/usr/lib/github-runner" ] [ "${scripts}" ] (
    builtins.readFile (guest + "/github-runner.service")
  );

  isUnit = line: line != "" && !lib.hasPrefix "#" line;
  masked = builtins.filter isUnit (lib.splitString "\n" (builtins.readFile (guest + "/masked")));
in
{
  imports = [ (modulesPath + "/profiles/minimal.nix") ];

  options.runner = {
    package = mkOption {
      type = types.package;
      default = pkgs.github-runner;
      defaultText = lib.literalExpression "services.runner-controller.runner.package";
      description = ''
        GitHub's runner. Only its `bin/Runner.Listener` is called, with a config for one job.
      '';
    };

    root = mkOption {
      type = types.path;
      default = "/var/lib/github-runner";
      description = "Where the listener writes its decoded config, for itself alone.";
    };

    workFolder = mkOption {
      type = types.path;
      default = "/home/runner/work";
      description = "Where jobs check out.";
    };

    packages = mkOption {
      type = types.listOf types.package;
      default = [ ];
      example = lib.literalExpression "[ pkgs.gcc pkgs.protobuf ]";
      description = ''
        More programs on a job's `PATH`. They lie in the host's store, once for all containers, and
        cost nothing until they are read.
      '';
    };

    commonTools = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Put on a job's `PATH` what most workflows call: git, curl, jq, archivers, `cachix`, and so
        on. Caches are pushed to only with a token from the job's own secrets.
      '';
    };

    docker = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Set by the pool's `docker`: Docker's daemon in the container, started by its first client.
      '';
    };

    nix = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Set by the pool's `nix`: a Nix daemon of the container's own, started by its first client.
      '';
    };

    unit = mkOption {
      type = types.str;
      internal = true;
      readOnly = true;
      default = unit;
      description = "The runner's unit, before what NixOS adds to it.";
    };

    sudo = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Let a job become root in its container without a password. That root is nobody on the host,
        and dies with the job; but it meets more of the kernel than a plain user does.
      '';
    };
  };

  config = {
    assertions = [
      {
        assertion = !lib.versionOlder (lib.getVersion cfg.package) versions.minimum;
        message = ''
          GitHub refuses version ${lib.getVersion cfg.package} of its runner. Run `nix flake update nixpkgs-runner`, or
          set services.runner-controller.runner.package to a github-runner of ${versions.minimum} or later.
        '';
      }
    ];

    boot.isNspawnContainer = true;
    # The host names the container and addresses its link. An empty name here serves every slot.
    networking = {
      hostName = "";
      useDHCP = false;
      useHostResolvConf = false;
      # /etc/resolv.conf is written by the launcher.
      resolvconf.enable = false;
      # Filtering is the host's, where a job that is root cannot change it.
      firewall.enable = false;
    };

    users = {
      mutableUsers = false;
      allowNoPasswordLogin = true;
      users.runner = {
        # GitHub's own images use the same ids.
        uid = 1001;
        group = "runner";
        isNormalUser = true;
        home = "/home/runner";
        createHome = true;
        shell = pkgs.bashInteractive;
        extraGroups = lib.optional cfg.docker "docker";
      };
      groups.runner.gid = 1001;
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
      # A job finds its tools by the listener's own PATH, so it is a user's and not a unit's.
      enableDefaultPath = false;
      environment = {
        PATH = lib.mkForce "/run/wrappers/bin:/home/runner/.local/bin:/run/current-system/sw/bin";
        LANG = "C.UTF-8";
        RUNNER_HOME = cfg.root;
        RUNNER_LISTENER = lib.getExe' cfg.package "Runner.Listener";
        # nixpkgs' wrapper changes to the store; what the listener writes goes here.
        RUNNER_ROOT = cfg.root;
        # A unit does not read /etc/profile, where nix-ld has these.
        NIX_LD = "/run/current-system/sw/share/nix-ld/lib/ld.so";
        NIX_LD_LIBRARY_PATH = "/run/current-system/sw/share/nix-ld/lib";
      }
      // lib.optionalAttrs cfg.nix { NIX_REMOTE = "daemon"; };
    };

    systemd.tmpfiles.settings."10-github-runner" = {
      # Under a layer on disk this one is a mount of memory, and root's when the container boots.
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
      # Shebangs in half of all repositories; the hook of ours has it too.
      "/bin/bash"."L+".argument = "${pkgs.bashInteractive}/bin/bash";
    };

    # Programs that actions download were linked for other distributions.
    programs.nix-ld = {
      enable = true;
      libraries = [ pkgs.icu ];
    };

    # Its storage is the layer's own directory, bound by the launcher.
    virtualisation.docker = lib.mkIf cfg.docker {
      enable = true;
      enableOnBoot = false;
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
          python3
          rsync
          unzip
          wget
          which
          xz
          zip
          zstd
        ]
        # Written in Haskell, whose generated package list a sparse copy of nixpkgs may lack.
        ++ lib.optional (haskellPackages ? retry) cachix
      );

    environment.etc."systemd/journald.conf.d/50-runner.conf".source = guest + "/journald.conf";

    # What a container for one job does without. A mask works for a unit that does not exist, too.
    systemd.units = lib.genAttrs masked (_: {
      enable = lib.mkForce false;
    });
    systemd.enableEmergencyMode = false;
    systemd.oomd.enable = false;
    services.timesyncd.enable = false;
    system.switch.enable = false;

    # The host's Nix daemon is not reached from here. What the container's own is told is in pool.conf,
    # by the launcher, which puts an overlay of the life's layer on the store for it.
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
      # What a build takes too much of is the build's loss, and not the listener's.
      serviceConfig = {
        OOMPolicy = "continue";
        OOMScoreAdjust = 500;
      };
    };
  };
}
