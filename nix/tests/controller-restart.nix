# Jobs continue and waiting containers stay while the daemon is restarted or killed.
{ common, ... }:
{
  name = "runner-controller-controller-restart";
  inherit (common) containers;
  nodes.host = common.host { };
  testScript = common.script + ''
    def invocations():
        units = host.succeed("systemctl list-units --plain --no-legend 'runner-ci@*' | cut -d' ' -f1").split()
        return {u: host.succeed(f"systemctl show -P InvocationID {u}").strip() for u in units}

    number = give("long", "true", hold=True)
    until(lambda: running(number))
    until(lambda: phases() == ["busy", "idle"])
    before = invocations()

    for blow in ["systemctl restart runner-controller", "systemctl kill -s KILL runner-controller"]:
        with subtest(blow):
            host.succeed(blow)
            host.wait_for_unit("runner-controller.service")
            until(lambda: phases() == ["busy", "idle"])
            assert invocations() == before, (before, invocations())
            assert running(number), job(number)

    with subtest("the job ends normally"):
        release(number)
        until(lambda: succeeded(number))
        until(lambda: status()["pools"][0]["verdicts"].get("job_done") == 1)

    with subtest("the next job is taken too"):
        number = give("next", "true")
        until(lambda: succeeded(number))
  '';
}
