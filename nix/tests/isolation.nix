# A hostile job reaches the internet, and neither the host nor its neighbours nor a secret.
{ common, ... }:
{
  name = "runner-controller-isolation";
  nodes = {
    inherit (common.nodes) github;
    host =
      { lib, pkgs, ... }:
      {
        imports = [
          (common.host { pools.ci.image.modules = [ { runner.sudo = true; } ]; })
        ];
        # Service of the host that the host's firewall opens to all machines.
        networking.firewall.allowedTCPPorts = [ 9999 ];
        systemd.services.open-service = {
          wantedBy = [ "multi-user.target" ];
          serviceConfig.ExecStart = "${lib.getExe pkgs.python3} -m http.server 9999";
        };
      };
  };
  testScript = common.script + ''
    def passes(name, run):
        number = give(name, run)
        until(lambda: job(number)["status"] == "completed")
        assert succeeded(number), job(number)

    def connects(address, port):
        return f"timeout 5 bash -c '</dev/tcp/{address}/{port}'"

    github.wait_until_succeeds("curl -sSf http://198.51.100.1:9999/")

    with subtest("the internet is open"):
        passes("out", connects("${common.github}", 8080))

    with subtest("the host is not"):
        passes("host", "! " + connects("198.51.100.1", 9999))
        for slot in range(2):
            passes(f"gateway{slot}", "! " + connects(f"10.200.0.{4 * slot + 1}", 9999))

    with subtest("nor is cloud metadata, nor a neighbour"):
        passes("metadata", "! " + connects("169.254.169.254", 80))
        passes("neighbours", " && ".join("! " + connects(f"10.200.0.{4 * n + 2}", 22) for n in range(2)))

    with subtest("root in the container is an unprivileged user on the host"):
        number = give("root", "sudo id -u && sudo sleep 60")
        until(lambda: running(number))
        host.wait_until_succeeds("pgrep -f '^sleep 60'")
        owner = int(host.succeed("stat -c %u /proc/$(pgrep -f '^sleep 60' | head -n1)"))
        assert owner >= 268435456, owner
        passes("kernel", "! sudo bash -c 'echo 1 > /proc/sys/kernel/sysrq'")
        passes("devices", "! sudo mknod /dev/leak b 8 0 || ! sudo head -c1 /dev/leak")

    with subtest("the store is read-only, and the host's Nix daemon is not reachable"):
        passes("store", "! sudo touch /nix/store/leak && test ! -e /nix/var/nix/daemon-socket/socket")

    with subtest("no file has the token"):
        # Brackets keep the search from finding itself in the step's script and in sudo's log.
        passes("token", "! sudo grep -rqs 'test[-]token' /run /etc /var /home /proc/self/environ")
  '';
}
