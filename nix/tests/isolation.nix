# A hostile job reaches the internet, and neither the host nor its neighbours nor a secret. The closed destinations
# answer other machines, so that a refusal is the work of the wall.
{ common, ... }:
let
  metadata = "169.254.169.254";
in
{
  name = "runner-controller-isolation";
  containers.github = {
    imports = [ common.containers.github ];
    # In place of a cloud's service, which hands out the credentials of the host.
    systemd.services.github-sim.serviceConfig.ExecStartPre =
      "+/run/current-system/sw/bin/ip address replace ${metadata}/32 dev eth1";
  };
  nodes.host =
    { lib, pkgs, ... }:
    {
      imports = [
        (common.host {
          pools.ci.image.modules = [
            {
              runner.sudo = true;
              runner.packages = [ pkgs.python3 ];
            }
          ];
        })
      ];
      networking.interfaces.eth1.ipv4.routes = [
        {
          address = metadata;
          prefixLength = 32;
        }
      ];
      # Service of the host that the host's firewall opens to all machines.
      networking.firewall.allowedTCPPorts = [ 9999 ];
      systemd.services.open-service = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${lib.getExe pkgs.python3} -m http.server 9999";
      };
    };
  testScript = common.script + ''
    def passes(name, run):
        number = give(name, run)
        until(lambda: job(number)["status"] == "completed")
        assert succeeded(number), job(number)

    def connects(address, port):
        return f"timeout 5 bash -c '</dev/tcp/{address}/{port}'"

    with subtest("the internet is open"):
        passes("out", connects("${common.github}", 8080))

    with subtest("the host is not"):
        github.wait_until_succeeds("curl -sSf http://198.51.100.1:9999/")
        passes("host", "! " + connects("198.51.100.1", 9999))
        for slot in range(2):
            host.wait_until_succeeds(connects(f"10.200.0.{4 * slot + 1}", 9999))
            passes(f"gateway{slot}", "! " + connects(f"10.200.0.{4 * slot + 1}", 9999))

    with subtest("nor is cloud metadata"):
        host.wait_until_succeeds(connects("${metadata}", 8080))
        passes("metadata", "! " + connects("${metadata}", 8080))

    with subtest("nor is a neighbour"):
        number = give("server", "{ python3 -m http.server 9999 & }", hold=True)
        until(lambda: running(number))
        slot = int(job(number)["runner_name"].split("-")[-2])
        address = f"10.200.0.{4 * slot - 2}"
        until(lambda: in_container(number, connects(address, 9999)) == 0)
        passes("neighbour", "! " + connects(address, 9999))
        assert in_container(number, connects(address, 9999)) == 0
        release(number)
        until(lambda: succeeded(number))

    with subtest("root in the container is an unprivileged user on the host"):
        number = give("root", "sudo id -u && sudo sleep 60")
        until(lambda: running(number))
        host.wait_until_succeeds("pgrep -f '^sleep 60'")
        owner = int(host.succeed("stat -c %u /proc/$(pgrep -f '^sleep 60' | head -n1)"))
        assert owner >= 268435456, owner
        host.succeed("test -w /proc/sys/kernel/sysrq && mknod /run/node b 254 0")
        passes("kernel", "! sudo bash -c 'echo 1 > /proc/sys/kernel/sysrq'")
        passes("devices", "! sudo mknod /run/node b 254 0")

    with subtest("the store is read-only, and the host's Nix daemon is not reachable"):
        host.succeed("test -S /nix/var/nix/daemon-socket/socket")
        passes("store", "! sudo touch /nix/store/leak && test ! -e /nix/var/nix/daemon-socket/socket")

    with subtest("no file has the token"):
        host.succeed("grep -qs 'test[-]token' /run/github-token")
        # Brackets keep the search from finding itself in the step's script and in sudo's log.
        passes("token", "! sudo grep -rqs 'test[-]token' /run /etc /var /home /proc/self/environ")
  '';
}
