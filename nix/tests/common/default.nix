# Parts that all scenarios share: a network in place of the internet, with the stand-in for GitHub, and a
# host with the module.
#
# The stand-in is a container of the test's sandbox, which saves a virtual machine. The host cannot be one: it loads
# kernel settings, starts containers with users of their own, switches to specialisations, and reboots.
#
# The stand-in has public addresses (RFC 5737), because containers reach no private ones.
{ self }:
let
  inherit (self.inputs) nixpkgs;
  inherit (nixpkgs) lib;

  subnet = "198.51.100";
  github = "${subnet}.7";
  resolver = "${subnet}.53";
  api = "http://${github}:8080";

  on =
    address: default:
    { lib, ... }:
    {
      virtualisation.vlans = [ 1 ];
      networking = {
        useDHCP = false;
        interfaces.eth1.ipv4.addresses = lib.mkForce [
          {
            inherit address;
            prefixLength = 24;
          }
        ];
        defaultGateway = lib.mkIf (default != null) {
          address = default;
          interface = "eth1";
        };
      };
    };

  # Stand-in for the listener, with the name of the real one and a version that GitHub accepts.
  listener =
    pkgs:
    let
      version = (import ../../runner-versions.nix { inherit lib; }).inTime;
    in
    pkgs.runCommand "standin-runner-${version}" { inherit version; } ''
      mkdir -p "$out/bin"
      cp ${pkgs.github-sim}/bin/standin-listener "$out/bin/Runner.Listener"
    '';
in
{
  inherit github resolver api;

  # Stand-in for GitHub: the API, and jobs on request.
  containers.github =
    { pkgs, ... }:
    {
      imports = [ (on github null) ];
      networking.firewall.enable = false;
      systemd.services.github-sim = {
        wantedBy = [ "multi-user.target" ];
        environment.GITHUB_SIM_TOKEN = "test-token";
        serviceConfig.ExecStart = "${lib.getExe pkgs.github-sim} --listen 0.0.0.0:8080 --public-url ${api} --scope acme/widgets";
      };
      environment.systemPackages = [ pkgs.curl ];
    };

  # Returns a host with one pool of two runners. `settings` extend it.
  host =
    settings:
    { pkgs, ... }:
    {
      imports = [
        self.nixosModules.default
        (on "${subnet}.1" github)
      ];
      virtualisation = {
        memorySize = 4096;
        cores = 4;
        diskSize = 4096;
        # Otherwise the store is an overlay, whose users the kernel does not map into a container.
        useNixStoreImage = true;
      };
      environment.systemPackages = [ pkgs.jq ];
      # The stand-in's token has no value; agenix would need a key in the machine.
      systemd.tmpfiles.settings.token."/run/github-token".f = {
        mode = "0400";
        argument = "test-token";
      };
      services.runner-controller = lib.mkMerge [
        {
          enable = true;
          github = {
            url = "https://github.com/acme/widgets";
            apiUrl = api;
            tokenFile = "/run/github-token";
          };
          settings.github.allow_plain_http = true;
          network.resolvers = [ resolver ];
          reconcile = "5s";
          runner.package = listener pkgs;
          pools.ci = {
            labels = [
              "self-hosted"
              "ci"
            ];
            minIdle = 1;
            minSpare = 1;
            maxRunners = 2;
            layer.size = "512 MiB";
            limits.memory = "1 GiB";
            image.modules = [ { runner.commonTools = false; } ];
          };
        }
        settings
      ];
    };

  # Helpers of the scenarios, in Python.
  script = ''
    import json
    import shlex

    SIM = "${api}/_sim"

    def sim(path, body=None):
        data = f"-d {shlex.quote(json.dumps(body))}" if body is not None else ""
        return json.loads(github.succeed(f"curl -sSf {data} {SIM}{path}"))

    def give(name, run, hold=False):
        """Queues a job. A held job runs until it is released."""
        if hold:
            run += " && until test -e /tmp/go; do sleep 0.2; done"
        job = {"name": name, "labels": ["ci"], "steps": [{"name": name, "run": run}]}
        return sim("/jobs", job)["ids"][0]

    def job(number):
        return sim(f"/jobs/{number}")

    def in_container(number, command):
        """Runs a command in the container of a running job, as its root, and returns the exit status."""
        machine = "-".join(job(number)["runner_name"].split("-")[-3:-1])
        main = host.succeed(f"systemctl show -P MainPID runner-{machine.replace('-', '@')}.service").strip()
        children = host.succeed(f"cat /proc/{main}/task/{main}/children").split()
        leader = next(pid for pid in children if host.execute(f"grep -q '^NSpid:.*[[:space:]]1$' /proc/{pid}/status")[0] == 0)
        return host.execute(f"nsenter --target {leader} --all -- {command}")[0]

    def release(number):
        assert in_container(number, "touch /tmp/go") == 0, job(number)

    def until(what, limit=180):
        """Waits for a state, and prints the host's status if it never comes. A daemon that restarts does not answer."""
        def look(last):
            try:
                seen, wrong = bool(what()), None
            except Exception as error:
                seen, wrong = False, error
            if last and not seen:
                print(host.execute("runner-status")[1])
                print(f"last: {wrong}")
            return seen
        retry(look, timeout_seconds=limit)

    def status():
        return json.loads(host.succeed("runner-status --json"))

    def phases():
        return sorted(r["phase"] for pool in status()["pools"] for r in pool["runners"])

    def succeeded(number):
        return job(number).get("conclusion") == "success"

    def running(number):
        return job(number)["status"] == "in_progress"

    start_all()
    github.wait_for_unit("github-sim.service")
    github.wait_for_open_port(8080)
    host.wait_for_unit("runner-controller.service")
    until(lambda: "idle" in phases())
  '';
}
