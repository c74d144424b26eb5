# One disk with a root partition, its boot loader, and what a boot and a switch must find. Layers of runners on
# disk are files without a name in /var/lib/runner-layers. xfs creates and deletes large sparse files quickly.
#
#   device     name in `ls -l /dev/disk/by-id`, because names such as nvme0n1 can change between boots
#   firmware   "uefi" (systemd-boot), or "bios" (GRUB) for machines without UEFI
{
  device,
  firmware ? "uefi",
}:
{
  config,
  lib,
  options,
  ...
}:
let
  # NixOS has the option since 26.11.
  countsBoots = firmware == "uefi" && options.boot.loader.systemd-boot ? bootCounting;
  root = config.fileSystems."/".device;
in
{
  disko.devices.disk.main = {
    inherit device;
    type = "disk";
    content = {
      type = "gpt";
      partitions = {
        boot =
          {
            # GRUB's second part, which reads /boot from the root partition.
            bios = {
              type = "EF02";
              size = "1M";
            };
            uefi = {
              type = "EF00";
              size = "1G";
              content = {
                type = "filesystem";
                format = "vfat";
                mountpoint = "/boot";
                mountOptions = [ "umask=0077" ];
              };
            };
          }
          .${firmware};
        root = {
          size = "100%";
          content = {
            type = "filesystem";
            format = "xfs";
            mountpoint = "/";
            mountOptions = [ "noatime" ];
          };
        };
      };
    };
  };

  boot.loader =
    {
      # disko tells GRUB the disk.
      bios.grub = {
        enable = true;
        configurationLimit = 10;
      };
      uefi = {
        efi.canTouchEfiVariables = true;
        systemd-boot = {
          enable = true;
          configurationLimit = 10;
        }
        // lib.optionalAttrs countsBoots { bootCounting.enable = true; };
      };
    }
    .${firmware};
  services.runner-controller.bootCheck.enable = countsBoots;

  # A system for another disk would not boot.
  system.preSwitchChecks.root-device = ''
    if [ ! -e ${lib.escapeShellArg root} ]; then
      echo ${lib.escapeShellArg "error: this machine lacks ${root}, the root of the new system; correct its disk in hosts/${config.networking.hostName}"}
      exit 1
    fi
  '';

  warnings = lib.optional (device == (lib.importJSON ./placeholders.json).disk) ''
    hosts/${config.networking.hostName}: replace the placeholder ${device} with the disk's name in /dev/disk/by-id.
  '';
}
