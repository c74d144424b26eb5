# What all hosts of the fleet have in common. A host's own files say its labels, disks and hardware.
{
  config,
  inputs,
  lib,
  pkgs,
  ...
}:
{
  age.secrets.github-runner.file = ../secrets/github-runner.age;

  services.runner-controller = {
    enable = true;
    github = {
      url = lib.mkDefault "https://github.com/acme/widgets";
      tokenFile = config.age.secrets.github-runner.path;
    };
    network.resolvers = [
      "9.9.9.9"
      "1.1.1.1"
    ];
    # Moved on its own: `nix flake update nixpkgs-runner`.
    runner.package =
      inputs.nixpkgs-runner.legacyPackages.${pkgs.stdenv.hostPlatform.system}.github-runner;

    pools.ci = {
      labels = [
        "self-hosted"
        "ci"
        "nix"
        "x64"
        "Linux"
      ];
      minIdle = lib.mkDefault 2;
      maxRunners = lib.mkDefault 7;
      layer = {
        kind = "disk";
        size = "40 GiB";
      };
      limits = {
        memory = "12 GiB";
        cpu = 4;
      };
      timeouts.job = "2h";
      # What the label `nix` promises.
      nix = true;
      image.modules = [ { runner.sudo = true; } ];
    };
    rebootWhenDrained.enable = true;
    prometheus.enable = true;
  };

  # The table of the runners and the host's own are of one kind.
  networking = {
    nftables.enable = true;
    useDHCP = lib.mkDefault true;
  };

  services.openssh = {
    enable = true;
    settings = {
      PasswordAuthentication = false;
      KbdInteractiveAuthentication = false;
      PermitRootLogin = "prohibit-password";
    };
  };
  users.mutableUsers = false;
  warnings = lib.optional ((import ./operators.nix) ? placeholder) ''
    hosts/operators.nix: replace `placeholder` by your own SSH key; nobody has the private half of it.
  '';
  users.users.root.openssh.authorizedKeys.keys = lib.attrValues (import ./operators.nix);

  # GitHub compares clocks: tokens and configs end at a time.
  services.timesyncd.enable = true;
  time.timeZone = "UTC";

  # Enough to look into last week's failure, never enough to fill the disk.
  services.journald.extraConfig = ''
    SystemMaxUse=4G
    SystemKeepFree=10G
    MaxRetentionSec=30day
  '';

  nix = {
    settings = {
      experimental-features = [
        "nix-command"
        "flakes"
      ];
      # Below 20 GiB free, a build collects garbage until 60 GiB are.
      min-free = 20 * 1024 * 1024 * 1024;
      max-free = 60 * 1024 * 1024 * 1024;
      auto-optimise-store = true;
    };
    # What runs is rooted: the system of the host, and that of every container.
    gc = {
      automatic = true;
      dates = "daily";
      options = "--delete-older-than 14d";
    };
  };
  boot.loader.systemd-boot.configurationLimit = 10;
  boot.loader.efi.canTouchEfiVariables = true;
  boot.loader.systemd-boot.enable = true;

  # A kernel that has stopped answering comes back by itself.
  boot.kernelParams = [ "panic=30" ];
  boot.tmp.cleanOnBoot = true;

  environment.systemPackages = with pkgs; [
    htop
    jq
    nftables
    tcpdump
  ];
  documentation.nixos.enable = false;
  system.stateVersion = "26.05";
}
