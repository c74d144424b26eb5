# A reboot: without warning it costs the job that ran and nothing else; the unattended one waits for it.
{ common, ... }:
{
  name = "runner-controller-reboot";
  nodes = {
    inherit (common.nodes) github;
    host = common.host { rebootWhenDrained.enable = true; };
  };
  testScript = common.script + ''
    def registered():
        return {r["name"] for r in sim("/runners") if r["standing"] == "registered"}

    old = registered()
    host.crash()
    host.start()
    host.wait_for_unit("runner-controller.service")

    with subtest("the pool refills, and the old registrations are gone"):
        until(lambda: "idle" in phases())
        until(lambda: not (registered() & old))
        number = give("after", "true")
        until(lambda: succeeded(number))

    # A machine of a test was never deployed to.
    host.succeed("mkdir -p /nix/var/nix/profiles && ln -sfn /run/booted-system /nix/var/nix/profiles/system")

    with subtest("nothing reboots while nothing is new"):
        host.succeed("systemctl start runner-controller-reboot.service")
        assert status()["state"] == "running", status()

    with subtest("a host that was drained for its reboot takes jobs again"):
        host.succeed("touch /var/lib/runner-controller-reboot/drained")
        host.succeed("runner-controller drain --wait --timeout 2m")
        host.shutdown()
        host.start()
        host.wait_for_unit("multi-user.target")
        until(lambda: status()["state"] == "running")
        until(lambda: "idle" in phases())
        host.fail("test -e /var/lib/runner-controller-reboot/drained")

    with subtest("one that an operator drained stays drained"):
        host.succeed("runner-controller drain --wait --timeout 2m")
        host.shutdown()
        host.start()
        host.wait_for_unit("runner-controller.service")
        assert status()["state"] == "drained", status()
  '';
}
