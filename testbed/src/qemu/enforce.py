#!/usr/bin/python3
"""Runs in a virtual machine with a kernel that counts: our units, launcher, daemon and guest image,
and jobs that take all there is. Says a line for each claim on the console."""

import glob
import http.client
import json
import os
import socket
import subprocess
import time
import urllib.request

SIM = "http://198.51.100.7:8080"
CGROUP = "/sys/fs/cgroup/runners.slice/runners-"
CONFIG = "/etc/runner-controller/config.toml"
MIB = 1 << 20
# Everything here is emulated, on a machine that may be busy with other things.
AT_LAST = 400
claims = 0


def say(text):
    with open("/dev/console", "w") as console:
        console.write(f"enforce: {text}\n")


def claim(name, holds, details):
    global claims
    claims += 1
    details = " | ".join(str(details).split("\n"))
    say(f"{'ok' if holds else 'FAIL'} {name}: {details}")


def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def read(path):
    with open(path) as file:
        return file.read().strip()


def await_(what, look):
    """Return the result of `look` as soon as it has one."""
    until = time.monotonic() + AT_LAST
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > until:
            raise TimeoutError(f"waited {AT_LAST} s for {what}")
        time.sleep(0.5)


def sim(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(SIM + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
    return json.loads(text) if text else None


class Api(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect("/run/runner-controller/api.sock")


def status():
    """The daemon's; a process for each look would be a good part of the machine's time."""
    api = Api("localhost", timeout=60)
    try:
        api.request("GET", "/status")
        return json.loads(api.getresponse().read())
    finally:
        api.close()


def install(pool):
    """A configuration with one pool, as an operator installs it."""
    with open(CONFIG, "w") as file:
        file.write(
            f"""host = "virtual"
reconcile = "2s"
[github]
url = "https://github.com/acme/widgets"
api_url = "{SIM}"
allow_plain_http = true
token_file = "/etc/runner-controller/token"
[network]
block = "10.200.0.0/16"
resolvers = ["198.51.100.53"]
{pool}
timeouts = {{ boot = "10m", registration = "10m" }}
"""
        )
    run("runner-controller", "units", "--install-root", "/")
    run("systemd-sysusers")
    run("systemd-tmpfiles", "--create")
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "systemd-modules-load", "runner-controller-firewall", "runner-controller")


def undrains():
    """Return true if the daemon received it. A daemon that has just started on a slow machine needs time."""
    return subprocess.run(["runner-controller", "undrain"], capture_output=True).returncode == 0


def await_idle(count):
    def idle():
        return sum(pool["phases"].get("idle", 0) for pool in status()["pools"]) == count

    await_(f"{count} idle runners", idle)


def leader(machine):
    """The host's number of a container's process 1."""
    unit = f"runner-{machine.replace('-', '@')}.service"
    main = run("systemctl", "show", "-P", "MainPID", unit).strip()
    with open(f"/proc/{main}/task/{main}/children") as children:
        return next(pid for pid in children.read().split() if is_init(pid))


class Job:
    """One job, from its start to the end of its runner's life."""

    def __init__(self, name, pool, script):
        say(f"doing {name}")
        spec = {
            "name": name,
            "labels": ["self-hosted", pool],
            "steps": [{"name": "run", "run": script}],
        }
        self.id = sim("/_sim/jobs", spec)["ids"][0]
        await_(f"the start of {name}", lambda: self.look()["status"] == "in_progress" or self.is_over())
        self.runner = self.look()["runner_name"]
        # virtual-ci-1-0123abcd
        self.machine = self.runner.removeprefix("virtual-").rsplit("-", 1)[0]
        pool, slot = self.machine.rsplit("-", 1)
        self.unit = f"{CGROUP}{pool}.slice/runner-{pool}@{slot}.service"

    def look(self):
        return sim(f"/_sim/jobs/{self.id}")

    def is_over(self):
        return self.look()["status"] == "completed"

    def group(self, name):
        """The control group of the job or of its listener, seen from the host."""
        found = glob.glob(f"{self.unit}/**/github-runner.service/{name}", recursive=True)
        return found[0] if found else None

    def path(self, name):
        """A path below the container's /tmp."""
        return f"/proc/{leader(self.machine)}/root/tmp/{name}"

    def has(self, name):
        return os.path.exists(self.path(name))

    def touch(self, name):
        open(self.path(name), "w").close()

    def release(self):
        self.touch("go")

    def end(self):
        """Its end and its life's; what it said, how it ended, and the verdict."""
        await_(f"the end of job {self.id}", self.is_over)
        seen = self.look()
        self.said = seen["facts"]["log_tail"]
        self.conclusion = seen["conclusion"]
        # None if the listener itself told.
        self.reason = seen["reason"]

        def ended():
            return next((life for life in status()["recent"] if life["runner"] == self.runner), None)

        self.life = await_(f"the end of {self.runner}", ended)
        self.verdict = self.life["verdict"]
        records = glob.glob(f"/run/runner-controller/lives/{self.machine}/*.end.json")
        newest = max(records, key=os.path.getmtime)
        self.record = json.loads(read(newest))
        return self

    def ends(self):
        return f"{self.conclusion}, {self.reason or 'as the listener said'}, {self.verdict}: {self.said[-400:]}"


def is_init(pid):
    """True for process 1 of an inner namespace."""
    with open(f"/proc/{pid}/status") as status:
        ids = next(line.split()[1:] for line in status if line.startswith("NSpid:"))
    return len(ids) > 1 and ids[-1] == "1"


def counter(path, name):
    for line in read(path).splitlines():
        key, value = line.split()
        if key == name:
            return int(value)
    return 0


def heartbeats(meanwhile=lambda: True):
    """Return the number of times that the one listener asks GitHub for messages, in ten seconds or until
    `meanwhile` holds too."""
    sim("/_sim/stats/reset", {})
    time.sleep(10)
    await_("the event to happen meanwhile", meanwhile)
    return sum(sim("/_sim/stats")["calls"].get("message", {}).values())


def out_of_memory():
    job = Job(
        "memory",
        "ci",
        "set +e; until [ -e /tmp/go ]; do python3 -c 'bytearray(200 << 20)'; done\n"
        "python3 -c 'bytearray(200 << 20)'",
    )
    events = f"{job.group('job')}/memory.events"
    await_("the second kill", lambda: counter(events, "oom_kill") >= 2)
    before = counter(events, "oom_kill")
    beats = heartbeats(lambda: counter(events, "oom_kill") > before)
    kills = counter(events, "oom_kill") - before
    job.release()
    job.end()
    peak = job.record["memory_peak_bytes"]
    claim(
        "a_job_out_of_memory_fails_and_its_life_ends_as_oom_with_the_peak",
        job.verdict == "oom"
        and job.conclusion == "failure"
        and job.reason is None
        and job.record["oom_kills"] >= 3
        and job.life["memory_peak_bytes"] == peak
        # A process that is being killed may take a few pages more.
        and 100 * MIB < peak <= 132 * MIB,
        f"peak {peak / MIB:.2f} of 128 MiB, {job.record['oom_kills']} kills, {job.life}, {job.ends()}",
    )
    claim(
        "a_listener_lives_while_its_job_runs_out_of_memory",
        beats >= 5,
        f"{beats} heartbeats during {kills} kills",
    )


FORK = """python3 -c '
import os, time
children = []
try:
    while len(children) < 1000:
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        children.append(child)
except OSError as why:
    print("forks", len(children), why.strerror, flush=True)
while not os.path.exists("/tmp/go"):
    try:
        os.fork() or os._exit(0)
    except OSError:
        time.sleep(0.02)
for child in children:
    os.kill(child, 9)
'"""


def fork_bomb():
    job = Job("forks", "ci", FORK)
    events = f"{job.group('job')}/pids.events"
    await_("a fork that failed", lambda: counter(events, "max") >= 3)
    beats = heartbeats()
    inside = int(read(f"{job.unit}/pids.current"))
    job.release()
    job.end()
    claim(
        "a_fork_bomb_is_stopped_below_its_containers_bound",
        "Resource temporarily unavailable" in job.said
        and 50 < inside <= 128
        and job.conclusion == "success"
        and job.verdict == "job_done",
        f"{inside} of 128 tasks, {job.ends()}",
    )
    claim("a_listener_lives_while_its_job_forks", beats >= 5, f"{beats} heartbeats in 10 s")


BURN = """for i in $(seq 12); do (while :; do :; done) & done
until [ -e /tmp/go ]; do sleep 0.5; done; kill $(jobs -p)"""


def burning_cpu():
    job = Job("burns", "ci", BURN)
    await_("12 loops", lambda: len(read(f"{job.group('job')}/cgroup.procs").split()) >= 12)
    stat = f"{job.unit}/cpu.stat"
    began, spent = time.monotonic(), counter(stat, "usage_usec")
    beats = heartbeats()
    spent = (counter(stat, "usage_usec") - spent) / 1e6
    took = time.monotonic() - began
    throttled = counter(stat, "nr_throttled")
    weights = [read(f"{job.group(name)}/cpu.weight") for name in ("listener", "job")]
    job.release()
    job.end()
    claim(
        "cpu_is_bounded_by_quota",
        0.2 < spent / took <= 1.15 and throttled > 0,
        f"{spent / took:.2f} of a bound of 1 on 2 CPUs, throttled {throttled} times",
    )
    claim(
        "a_listener_lives_while_its_job_burns_cpu",
        beats >= 5
        and weights == ["10000", "100"]
        and job.conclusion == "success"
        and job.verdict == "job_done",
        f"{beats} heartbeats in 10 s, weights {weights}, {job.ends()}",
    )


SEES = """group=$(grep ^0:: /proc/self/cgroup | cut -d: -f3)
echo "quota: $(cat "/sys/fs/cgroup$group/cpu.max")"
echo "nproc: $(nproc)"
echo "node: $(node --print 'os.availableParallelism()')\""""


def seen_quota():
    job = Job("sees", "ci", SEES).end()
    claim(
        "a_job_sees_its_quota_where_runtimes_look",
        all(line in job.said for line in ("quota: 100000 100000\n", "nproc: 1\n", "node: 1\n")),
        job.ends(),
    )


def locked_memory():
    """The limit of a daemon in a pool with docker, as its unit in a prepared image asks for it."""
    look = ["nsenter", "--target", leader("pair-1"), "--all", "systemd-run", "--quiet", "--pipe", "--wait"]
    limit = run(*look, "--property=LimitMEMLOCK=8M:infinity", "sh", "-c", "ulimit -Sl; ulimit -Hl")
    claim("docker_may_raise_the_limit_of_locked_memory", limit.split() == ["8192", "unlimited"], limit)


TOGETHER = """python3 -c '
import os, time
def wait(path):
    while not os.path.exists(path):
        time.sleep(0.1)
children = []
try:
    while len(children) < 70:
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        children.append(child)
except OSError as why:
    print("forks", len(children), why.strerror, flush=True)
with open("/tmp/forks", "w") as file:
    file.write(str(len(children)))
# Other work in the containers takes a process now and then.
for child in children[-10:]:
    os.kill(child, 9)
    os.waitpid(child, 0)
os.rename("/tmp/forks", "/tmp/forked")
wait("/tmp/next")
for child in children[:-10]:
    os.kill(child, 9)
    os.waitpid(child, 0)
block = bytearray(70 << 20)
open("/tmp/filled", "w").close()
wait("/tmp/go")
'"""


def pool_caps():
    """Two jobs, each within its own bounds, and together beyond their pool's."""
    slice_ = f"{CGROUP}pair.slice"
    files = ("memory.max", "memory.swap.max", "pids.max", "cpu.max")
    bounds = [read(f"{slice_}/{name}") for name in files]
    claim(
        "a_pools_slice_has_its_caps",
        bounds == [str(160 * MIB), "0", "128", "150000 100000"],
        bounds,
    )
    jobs = [Job(f"together-{n}", "pair", TOGETHER) for n in (1, 2)]
    await_("two jobs to fork", lambda: all(job.has("forked") for job in jobs))
    forks = [int(read(job.path("forked"))) for job in jobs]
    claim(
        "two_jobs_have_no_more_tasks_than_their_pool",
        40 < sum(forks) < 128 and min(forks) < 70,
        f"{forks} forks of 70 each, 128 tasks for both and 128 for each",
    )
    for job in jobs:
        job.touch("next")
    await_("a kill", lambda: any(job.is_over() for job in jobs))
    # The other one lives, and has what it asked for.
    await_("the survivor", lambda: all(job.is_over() or job.has("filled") for job in jobs))
    for job in jobs:
        if not job.is_over():
            job.release()
    ends = [job.end() for job in jobs]
    claim(
        "two_jobs_have_no_more_memory_than_their_pool",
        sorted(job.verdict for job in ends) == ["job_done", "oom"]
        and counter(f"{slice_}/memory.events.local", "oom") >= 1,
        f"both may have 160 MiB, each 128: {[(job.record['memory_peak_bytes'] // MIB, job.ends()) for job in ends]}",
    )


def world():
    for line in """netns add internet
link add up0 type veth peer name in0 netns internet
address add 198.51.100.1/24 dev up0
link set up0 up
-n internet address add 198.51.100.7/24 dev in0
-n internet link set in0 up
-n internet link set lo up""".splitlines():
        run("ip", *line.split())
    run("systemctl", "start", "github-sim")
    # There is swap, and no container gets any of it.
    run("fallocate", "--length", "256M", "/swap")
    os.chmod("/swap", 0o600)
    run("mkswap", "--quiet", "/swap")
    run("swapon", "/swap")


COMMON = """image = { kind = "directory", path = "/var/lib/runner-images/debian" }
min_spare = 0
layer = { kind = "tmpfs", size = "32 MiB" }
limits = { memory = "128 MiB", cpu = 1, tasks = 128 }
"""


def main():
    world()
    install('[pools.ci]\nlabels = ["self-hosted", "ci"]\nmin_idle = 1\nmax_runners = 1\n' + COMMON)
    # A heartbeat every 50 ms, where GitHub's listener has one every 50 s.
    sim("/_sim/settings", {"poll_hold_ms": 50})
    await_idle(1)
    out_of_memory()
    fork_bomb()
    burning_cpu()
    seen_quota()
    sim("/_sim/settings", {"poll_hold_ms": 50000})
    run("runner-controller", "drain", "--wait", "--timeout", f"{AT_LAST}s")
    install(
        '[pools.pair]\nlabels = ["self-hosted", "pair"]\nmin_idle = 2\nmax_runners = 2\ndocker = true\n'
        'total = { memory = "160 MiB", cpu = 1.5, tasks = 128 }\n' + COMMON
    )
    await_("an answer", undrains)
    await_idle(2)
    locked_memory()
    pool_caps()
    say(f"end {claims}")


try:
    main()
except Exception as why:
    say(f"FAIL the_machine_gets_to_its_end: {type(why).__name__} {why} {getattr(why, 'stderr', '')}")
    journal = subprocess.run(["journalctl", "--no-pager", "-n", "60"], capture_output=True, text=True)
    with open("/dev/console", "w") as console:
        console.write(journal.stdout)
