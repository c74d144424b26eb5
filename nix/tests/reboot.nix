# A reboot without warning costs only the job that ran. An unattended reboot waits for jobs.
{ common, ... }:
{
  name = "runner-controller-reboot";
  inherit (common) containers;
  nodes.host = common.host { rebootWhenDrained.enable = true; };
  testScript = common.script + ''
    def registered():
        return {r["name"] for r in sim("/runners") if r["standing"] == "registered"}

    old = registered()
    host.crash()
    host.start()
    host.wait_for_unit("runner-controller.service")

    with subtest("the pool refills, and old registrations are gone"):
        until(lambda: "idle" in phases())
        # A registration counts as left over after two minutes.
        until(lambda: not (registered() & old), limit=600)
        number = give("after", "true")
        until(lambda: succeeded(number))

    # The profile is missing, because a test deploys nothing to its machine.
    host.succeed("mkdir -p /nix/var/nix/profiles && ln -sfn /run/booted-system /nix/var/nix/profiles/system")

    with subtest("a host with the deployed system is not rebooted"):
        host.succeed("systemctl start runner-controller-reboot.service")
        assert status()["state"] == "running", status()

    with subtest("a drain ends with the boot"):
        host.succeed("runner-controller drain --wait --timeout 2m")
        assert status()["state"] == "drained", status()
        host.shutdown()
        host.start()
        host.wait_for_unit("runner-controller.service")
        until(lambda: status()["state"] == "running")
        until(lambda: "idle" in phases())

    with subtest("an unattended reboot waits for the job"):
        number = give("held", "true", hold=True)
        until(lambda: running(number))
        # A system that differs in its kernel.
        host.succeed(
            "mkdir /run/next && cp -P /run/booted-system/{initrd,kernel-modules,systemd} /run/next",
            "ln -s /dev/null /run/next/kernel && ln -sfn /run/next /nix/var/nix/profiles/system",
            "systemctl start --no-block runner-controller-reboot.service",
        )
        until(lambda: status()["state"] == "draining")
        assert running(number), job(number)
        release(number)
        until(lambda: succeeded(number))
        host.wait_for_shutdown()
        host.start()
        host.wait_for_unit("runner-controller.service")
        until(lambda: "idle" in phases())
  '';
}
