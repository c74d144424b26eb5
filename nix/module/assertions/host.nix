# The host: kernel, systemd, file systems, users.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";
  inherit (import ../values.nix { inherit lib; }) isBelow;
  kernel = config.boot.kernelPackages.kernel.version;

  mounts = lib.mapAttrsToList (name: mount: {
    path = mount.mountPoint or name;
    type = mount.fsType or "auto";
  }) config.fileSystems;
  # Type of the file system with this path; `auto` if the configuration does not say it.
  typeOf =
    path:
    (lib.foldl'
      (
        best: mount:
        if isBelow mount.path path && lib.stringLength mount.path >= lib.stringLength best.path then
          mount
        else
          best
      )
      {
        path = "";
        type = "auto";
      }
      mounts
    ).type;

  hasImage = lib.any (pool: pool.image.directory == null) (lib.attrValues cfg.pools);
  onDisk = lib.attrNames (lib.filterAttrs (_: pool: pool.layer.kind == "disk") cfg.pools);
  store = typeOf builtins.storeDir;

  # Directories that have another owner, and those whose contents another program removes.
  owned = [
    "/etc"
    "/home"
    "/nix"
    "/root"
    "/srv"
    "/usr"
    "/var"
    "/var/lib"
    "/var/lib/runner-controller"
  ];
  removed = [
    "/boot"
    "/dev"
    "/nix/store"
    "/proc"
    "/run"
    "/sys"
    "/tmp"
    "/var/tmp"
  ];
  layerDir = toString cfg.layerDir;

  strangers = lib.filter (name: !config.users.users ? ${name}) cfg.operators;
  strange = "${at}.operators: remove ${lib.concatStringsSep ", " strangers}, or add users.users.${lib.head strangers}, because this host does not declare that user.";
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = !config.boot.isContainer;
        message = "boot.isContainer: use a machine instead of a container, because ${at} loads kernel settings and starts containers with their own users.";
      }
      {
        # Older releases lack options that the containers' system sets.
        assertion = lib.versionAtLeast config.system.nixos.release "26.05";
        message = "nixpkgs: use NixOS 26.05 or later instead of ${config.system.nixos.release}, because ${at} is checked with no older one.";
      }
      {
        # The firewall's table has an owner and persists; the kernel can do that since 6.9.
        assertion = config.boot.isContainer || lib.versionAtLeast kernel "6.9";
        message = "boot.kernelPackages: use Linux 6.9 or later instead of ${kernel}, because the firewall of ${at} needs it.";
      }
      {
        assertion = lib.versionAtLeast config.systemd.package.version "257";
        message = "systemd.package: use systemd 257 or later instead of ${config.systemd.package.version}, because ${at} needs it.";
      }
      {
        assertion =
          !(
            hasImage
            && lib.elem store [
              "9p"
              "fuse"
              "nfs"
              "nfs4"
              "overlay"
              "virtiofs"
            ]
          );
        message = "fileSystems.\"/nix/store\": put the store on a local file system such as ext4 or xfs instead of ${store}, because the kernel does not map users of ${store} into a container. A pool with image.directory does not need it.";
      }
      {
        assertion =
          !(
            onDisk != [ ]
            && lib.elem (typeOf layerDir) [
              "ramfs"
              "tmpfs"
            ]
          );
        message = "${at}.layerDir: set it to a directory on a disk, because ${layerDir} is on ${typeOf layerDir} and pool ${toString onDisk} has layer.kind = \"disk\"; or set layer.kind = \"tmpfs\".";
      }
      {
        assertion = !lib.elem layerDir owned && !lib.any (directory: isBelow directory layerDir) removed;
        message = "${at}.layerDir: set it to a directory for layers alone, such as \"/var/lib/runner-layers\", because ${layerDir} belongs to another program.";
      }
      {
        assertion = config.users.mutableUsers || strangers == [ ];
        message = strange;
      }
    ];

    warnings =
      lib.optional (config.users.mutableUsers && strangers != [ ]) strange
      ++ lib.optional (config.virtualisation.docker.enable && !config.networking.nftables.enable) ''
        Docker on this host drops forwarded traffic, the runners' traffic included. Accept interfaces
        rc-* in chain DOCKER-USER, or remove virtualisation.docker and set pools.<name>.docker instead.
      '';
  };
}
