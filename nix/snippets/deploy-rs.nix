inputs: {
  deploy.nodes.runner-01 = {
    hostname = "192.0.2.11";
    sshUser = "root";
    profiles.system.path =
      inputs.deploy-rs.lib.x86_64-linux.activate.nixos
        inputs.self.nixosConfigurations.runner-01;
  };
}
