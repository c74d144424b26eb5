{
  imports = [
    ./hardware.nix
    # As `ls -l /dev/disk/by-id` shows it on the machine: names like nvme0n1 may change places.
    (import ../disk.nix { device = "/dev/disk/by-id/nvme-main"; })
  ];

  services.runner-controller = {
    pools.ci.labels = [ "fuzz-b" ];
    # Not when the other host does.
    rebootWhenDrained.schedule = "Sun 12:30";
  };
}
