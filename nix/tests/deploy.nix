# A deploy with a new configuration touches no job, and a drain waits for jobs.
{ common, ... }:
{
  name = "runner-controller-deploy";
  inherit (common) containers;
  nodes.host =
    { lib, ... }:
    {
      imports = [ (common.host { }) ];
      specialisation.next.configuration.services.runner-controller.pools.ci = {
        labels = [ "next" ];
        limits.memory = lib.mkForce "900 MiB";
      };
      specialisation.without.configuration.services.runner-controller.pools = lib.mkForce {
        other = {
          labels = [ "other" ];
          offset = 8;
          maxRunners = 1;
          image.modules = [ { runner.commonTools = false; } ];
        };
      };
    };
  testScript = common.script + ''
    def switch(to):
        host.succeed(f"/run/booted-system/specialisation/{to}/bin/switch-to-configuration test")
        host.wait_for_unit("runner-controller.service")

    def unit_of(number):
        name = job(number)["runner_name"].split("-")
        return f"runner-ci@{name[-2]}.service"

    number = give("held", "true", hold=True)
    until(lambda: running(number))
    unit = unit_of(number)
    before = host.succeed(f"systemctl show -P InvocationID {unit}")

    with subtest("a switch changes the daemon and not the runner"):
        switch("next")
        host.succeed("grep -q next /etc/runner-controller/config.toml")
        until(lambda: "next" in status()["pools"][0]["labels"])
        assert host.succeed(f"systemctl show -P InvocationID {unit}") == before
        assert running(number), job(number)

    with subtest("runners that start now have the new limits"):
        late = give("late", "true")
        until(lambda: succeeded(late))
        # If an older runner took the job, its unit shows the new limits once it has ended.
        host.wait_until_succeeds(f"systemctl show -P MemoryMax {unit_of(late)} | grep -qx 943718400")

    with subtest("the unit of the held job keeps the limits with which it began"):
        host.succeed(f"systemctl show -P MemoryMax {unit} | grep -qx 1073741824")

    with subtest("a drain waits for the job and reports it"):
        host.succeed("! runner-controller drain --wait --timeout 3s")
        assert running(number), job(number)
        release(number)
        host.succeed("runner-controller drain --wait --timeout 2m")
        until(lambda: succeeded(number))
        assert phases() == [], status()
        host.fail("pgrep systemd-nspawn")

    with subtest("afterwards the pool refills"):
        host.succeed("runner-controller undrain")
        until(lambda: "idle" in phases())

    with subtest("a pool that is removed while its job runs lets the job end"):
        number = give("orphan", "true", hold=True)
        until(lambda: running(number))
        unit = unit_of(number)
        switch("without")
        assert running(number), job(number)
        release(number)
        until(lambda: succeeded(number))
        host.wait_until_fails(f"systemctl is-active {unit}")
        host.wait_until_fails("ls -d /nix/var/nix/gcroots/runner-controller/ci-* || ip link show | grep rc-ci-")
        host.succeed("! systemctl list-units --failed --plain --no-legend | grep runner-ci")
        until(lambda: [pool["name"] for pool in status()["pools"]] == ["other"] and phases() == ["idle"])
  '';
}
