# One host. Replace every value that is marked CHANGE.
{
  config,
  inputs,
  pkgs,
  ...
}:
{
  # A host with a placeholder does not evaluate. Keep these lines, because they cost nothing later.
  assertions = [
    {
      assertion = config.services.runner-controller.github.url != "https://github.com/acme/widgets";
      message = "box.nix: replace https://github.com/acme/widgets with your repository or organisation.";
    }
    {
      assertion = config.disko.devices.disk.main.device != "/dev/disk/by-id/CHANGE";
      message = "box.nix: replace /dev/disk/by-id/CHANGE with the disk's name in /dev/disk/by-id.";
    }
    {
      assertion = config.users.users.root.openssh.authorizedKeys.keys != [ ];
      message = "box.nix: add your SSH key to users.users.root.openssh.authorizedKeys.keys, because a host without it locks you out.";
    }
  ];

  networking.hostName = "box"; # CHANGE

  warnings = inputs.runner-controller.lib.ageWarnings {
    input = inputs.nixpkgs-runner.lastModified;
    configuration = inputs.self.lastModified;
  };

  services.runner-controller = {
    enable = true;
    github.url = "https://github.com/acme/widgets"; # CHANGE: a repository or an organisation
    # CHANGE: with agenix, config.age.secrets.github-runner.path. Never a file of this repository.
    github.tokenFile = "/var/lib/secrets/github-token";
    network.resolvers = [ "9.9.9.9" ];
    runner.package =
      inputs.nixpkgs-runner.legacyPackages.${pkgs.stdenv.hostPlatform.system}.github-runner;
    pools.ci = {
      labels = [
        "self-hosted"
        "ci"
        "x64"
        "Linux"
      ];
      minIdle = 2;
      maxRunners = 4;
      limits.memory = "6 GiB";
    };
  };

  # CHANGE: the output of `nixos-generate-config --no-filesystems` on the machine.
  nixpkgs.hostPlatform = "x86_64-linux";
  boot.initrd.availableKernelModules = [
    "ahci"
    "nvme"
    "sd_mod"
    "virtio_blk"
    "virtio_pci"
  ];
  boot.loader.systemd-boot.enable = true;
  disko.devices.disk.main = {
    device = "/dev/disk/by-id/CHANGE";
    type = "disk";
    content = {
      type = "gpt";
      partitions = {
        boot = {
          type = "EF00";
          size = "1G";
          content = {
            type = "filesystem";
            format = "vfat";
            mountpoint = "/boot";
            mountOptions = [ "umask=0077" ];
          };
        };
        root = {
          size = "100%";
          content = {
            type = "filesystem";
            format = "xfs";
            mountpoint = "/";
          };
        };
      };
    };
  };

  services.openssh.enable = true;
  services.openssh.settings.PasswordAuthentication = false;
  users.users.root.openssh.authorizedKeys.keys = [ ]; # CHANGE

  nix.settings.experimental-features = [
    "nix-command"
    "flakes"
  ];
  system.stateVersion = "26.05";
}
