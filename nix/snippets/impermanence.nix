{
  environment.persistence."/persist" = {
    directories = [
      # History, registrations to delete after a crash, and a drain.
      "/var/lib/runner-controller"
      # The host's uids and gids.
      "/var/lib/nixos"
      "/var/log/journal"
    ];
    files = [
      "/etc/machine-id"
      "/etc/ssh/ssh_host_ed25519_key"
      "/etc/ssh/ssh_host_ed25519_key.pub"
    ];
  };
  # agenix decrypts before the files above are in place.
  age.identityPaths = [ "/persist/etc/ssh/ssh_host_ed25519_key" ];
  # Layers on disk must be on a disk, and nothing of them outlives a runner.
  services.runner-controller.layerDir = "/persist/runner-layers";
}
