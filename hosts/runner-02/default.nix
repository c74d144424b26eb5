{
  imports = [
    ./hardware.nix
    # Name in `ls -l /dev/disk/by-id`. A machine without UEFI also needs `firmware = "bios"`.
    (import ../disk.nix { device = "/dev/disk/by-id/nvme-main"; })
  ];

  services.runner-controller = {
    pools.ci.labels = [ "fuzz-b" ];
    # At another time than the other host.
    rebootWhenDrained.schedule = "Sun 12:30";
  };
}
