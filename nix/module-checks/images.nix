# Mistakes in the modules of an image, and an image without one.
{ lib, pkgs }:
{
  # One image makes all of them, because an image takes half a gigabyte.
  refused.services.runner-controller = {
    runner.package = pkgs.github-runner // {
      version = "2.334.0";
    };
    pools.ci.image.modules = [
      (pkgs.path + "/nixos/modules/profiles/perlless.nix")
      {
        nixpkgs.config.allowUnfree = true;
        users.users.runner.uid = lib.mkForce 1500;
        systemd.services.github-runner.postStart = "touch /run/started";
        services.github-runners.another = {
          enable = true;
          url = "https://github.com/acme/widgets";
          tokenFile = "/run/token";
        };
      }
    ];
  };
  messages = map (message: "services.runner-controller.pools.ci.image: ${message}") [
    "GitHub refuses version 2.334.0 of its runner"
    "remove preStart, postStart and every Exec…= of systemd.services.github-runner from modules"
    "remove nixpkgs.config from modules and set it on the host"
    "remove services.github-runners from modules"
    "remove uid, group and gid of users.users.runner and users.groups.runner from modules"
    "set system.etc.overlay.enable = false, or remove profiles/perlless.nix from modules"
  ];

  # GitHub was not seen to refuse it, and the release after it is old.
  warned."services.runner-controller.runner.package: take version" = {
    services.runner-controller = {
      runner.package = pkgs.github-runner // {
        version = (import ../runner-versions.nix { inherit lib; }).minimum;
      };
      pools.ci.image.directory = lib.mkForce null;
      build.containers = lib.mkForce { };
    };
  };

  # Units that start in each container besides systemd's own. Each further one makes each boot longer.
  starts = [
    # In Debian's image, D-Bus and Nix have the same ones.
    "dbus.socket"
    "github-runner.service"
    "nix-daemon.socket"
    # Lets programs use the NSS modules of NixOS.
    "nscd.service"
    "remove-nologin.service"
    # Sets up sudo.
    "suid-sgid-wrappers.service"
  ];

  accepted.services.runner-controller.pools.ci = {
    nix = true;
    image = {
      specialArgs.tools = [ pkgs.hello ];
      modules = [
        (
          { tools, ... }:
          {
            runner.packages = tools;
            runner.sudo = true;
            assertions = [
              {
                assertion = lib.length tools == 1;
                message = "specialArgs are not the operator's";
              }
            ];
          }
        )
      ];
    };
  };
}
