# Hosts on which the module cannot work, and users that a host lacks.
{ lib }:
let
  settings = lib.mapAttrs (_: given: { services.runner-controller = given; });
  # Settings of a host whose pool has a NixOS image, without evaluating the image.
  withStore = type: {
    fileSystems."/nix/store".fsType = type;
    services.runner-controller.pools.ci.image.directory = lib.mkForce null;
    services.runner-controller.build.containers = lib.mkForce { };
  };
  layers = directory: {
    layerDir = directory;
  };
  layersIn = directory: "layerDir: set it to a directory for layers alone, such as \"/var/lib/runner-layers\", because ${directory} belongs to another program.";
in
{
  refused =
    settings (
      lib.listToAttrs (
        map (directory: lib.nameValuePair (layersIn directory) (layers directory)) [
          "/nix/store/layers"
          "/run/layers"
          "/tmp"
          "/var/lib"
          "/var/tmp/layers"
        ]
      )
    )
    // lib.listToAttrs (
      map
        (
          type:
          lib.nameValuePair "put the store on a local file system such as ext4 or xfs instead of ${type}" (
            withStore type
          )
        )
        [
          "9p"
          "nfs"
          "nfs4"
          "overlay"
          "virtiofs"
        ]
    )
    // {
      "boot.kernelPackages: use Linux 6.9 or later instead of 6.8.12".boot.kernelPackages.kernel.version =
        "6.8.12";
      "nixpkgs: use NixOS 26.05 or later instead of 25.11".system.nixos.release = "25.11";
      "systemd.package: use systemd 257 or later instead of 256.4".systemd.package.version = "256.4";
      "bootCheck: set boot.loader.systemd-boot.bootCounting.enable = true".services.runner-controller.bootCheck.enable =
        true;
      "boot.isContainer: use a machine instead of a container".boot.isContainer = true;
      "layerDir: set it to a directory on a disk, because /var/lib/runner-layers is on tmpfs and pool ci has layer.kind = \"disk\"" =
        {
          fileSystems."/".fsType = "tmpfs";
          services.runner-controller.pools.ci.layer.kind = "disk";
        };
      "operators: remove bob, or add users.users.bob, because this host does not declare that user" = {
        users.mutableUsers = false;
        users.users.alice.isNormalUser = true;
        services.runner-controller.operators = [
          "alice"
          "bob"
        ];
      };
    };

  warned = {
    "operators: remove alice, or add users.users.alice".services.runner-controller.operators = [
      "alice"
    ];
    "Docker on this host drops forwarded traffic".virtualisation.docker.enable = true;
  };
}
