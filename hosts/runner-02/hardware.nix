# Placeholder that boots most x86 servers. Replace it with the output of this command on the machine:
#   nixos-generate-config --no-filesystems --show-hardware-config
{ lib, ... }:
{
  nixpkgs.hostPlatform = "x86_64-linux";
  boot.initrd.availableKernelModules = [
    "ahci"
    "nvme"
    "sd_mod"
    "usb_storage"
    "usbhid"
    "virtio_blk"
    "virtio_pci"
    "virtio_scsi"
    "xhci_pci"
  ];
  boot.kernelModules = [
    "kvm-amd"
    "kvm-intel"
  ];
  hardware.enableRedistributableFirmware = true;
  hardware.cpu.amd.updateMicrocode = lib.mkDefault true;
  hardware.cpu.intel.updateMicrocode = lib.mkDefault true;
}
