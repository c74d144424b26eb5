{
  services.runner-controller.pools.ci = {
    nix = true;
    allow = [ "10.0.0.6:22" ];
    image.modules = [
      {
        programs.ssh.knownHosts."10.0.0.6".publicKey =
          "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBCvaigtE6q+kIGqyWvCfOPPsMqMCVi09wDivQRv4LNG";
      }
    ];
  };
}
