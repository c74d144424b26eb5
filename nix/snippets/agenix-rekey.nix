{ config, ... }:
{
  age.rekey = {
    hostPubkey = "ssh-ed25519 AAAA…";
    masterIdentities = [ ./operator.pub ];
    storageMode = "local";
    localStorageDir = ./rekeyed + "/${config.networking.hostName}";
  };
  age.secrets.github-runner.rekeyFile = ./github-runner.age;
  services.runner-controller.github.tokenFile = config.age.secrets.github-runner.path;
}
