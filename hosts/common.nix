# Configuration of all hosts. Each host's directory has its labels, disks and hardware.
{
  config,
  inputs,
  lib,
  pkgs,
  ...
}:
let
  placeholders = lib.importJSON ./placeholders.json;
  name = config.networking.hostName;
  keys = (import ../secrets/secrets.nix)."github-runner.age".publicKeys;
in
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
    # `nix flake update nixpkgs-runner` updates only this.
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
      # The label `nix` promises it.
      nix = true;
      image.modules = [ { runner.sudo = true; } ];
    };
    rebootWhenDrained.enable = true;
    prometheus.enable = true;
  };

  # The host's firewall uses nftables, as the runners' table does.
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
  warnings =
    lib.optional ((import ./operators.nix) ? placeholder) ''
      hosts/operators.nix: replace `placeholder` with your SSH key, because its private half does not exist.
    ''
    ++ lib.optional (config.services.runner-controller.github.url == placeholders.url) ''
      hosts/common.nix: replace ${placeholders.url} with your repository or organisation.
    ''
    ++ lib.optional (placeholders ? ${name} && lib.elem placeholders.${name} keys) ''
      secrets/secrets.nix: replace the placeholder of ${name} with its host key; `just bootstrap` does so.
    ''
    ++ inputs.self.lib.ageWarnings {
      input = inputs.nixpkgs-runner.lastModified;
      configuration = inputs.self.lastModified;
    };
  users.users.root.openssh.authorizedKeys.keys = lib.attrValues (import ./operators.nix);

  # Tokens and configs expire at a time, so GitHub compares clocks.
  services.timesyncd.enable = true;
  time.timeZone = "UTC";

  # The journal keeps last week's failure and cannot fill the disk.
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
      # With less than 20 GiB free, a build collects garbage until 60 GiB are free.
      min-free = 20 * 1024 * 1024 * 1024;
      max-free = 60 * 1024 * 1024 * 1024;
      auto-optimise-store = true;
    };
    # Roots keep the systems of the host and of every container.
    gc = {
      automatic = true;
      dates = "daily";
      options = "--delete-older-than 14d";
    };
  };

  # A host whose kernel panicked reboots by itself.
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
