# The module boots, its pool warms up, and each job gets a new container that is gone afterwards.
{ common, ... }:
{
  name = "runner-controller-serves-jobs";
  inherit (common) containers;
  nodes.host = common.host { };
  testScript = common.script + ''
    with subtest("jobs run as the runner's user, each in a new container"):
        jobs = [give(f"job{n}", "test $(id -un) = runner && touch /tmp/mark && test -w .") for n in range(4)]
        for number in jobs:
            until(lambda: succeeded(number))
        boots = {job(number)["facts"]["boot_id"] for number in jobs}
        runners = {job(number)["runner_name"] for number in jobs}
        assert len(runners) == 4, runners
        names = {job(number)["facts"]["hostname"] for number in jobs}
        assert names <= {"host-ci-1", "host-ci-2"}, names
        assert len(boots) == 4, "two containers share a boot id"

    with subtest("files of a job are gone with it"):
        number = give("clean", "test ! -e /tmp/mark")
        until(lambda: succeeded(number))

    with subtest("every runner has its verdict"):
        until(lambda: status()["pools"][0]["verdicts"].get("job_done") == 5)
        assert status()["pools"][0]["failed"] == 0, status()

    with subtest("a job finds bash, env and programs that were linked elsewhere"):
        number = give("paths", "/bin/bash -c true && /usr/bin/env true && test -x /lib64/ld-linux-x86-64.so.2")
        until(lambda: succeeded(number))

    with subtest("a job reaches the system bus"):
        number = give("bus", "systemctl show --property=Version")
        until(lambda: succeeded(number))

    with subtest("the token is in no unit and no container"):
        host.fail("{ systemctl show 'runner-*' || true; } | grep -q test-token")
        # Brackets keep the search from finding itself.
        host.fail("{ cat /proc/[0-9]*/{environ,cmdline} 2>/dev/null || true; } | grep -aq 'test[-]token'")
  '';
}
