//! Limits are properties of systemd's units. `cargo verify --only qemu` shows that the kernel
//! enforces them, because a test host on a machine whose controllers are in use elsewhere has none.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::common::{
    SOON, as_its_root, ensure_says, finish_held, in_container, run, spare, start_held,
};
use super::fixture::SMALL;
use super::suite::{Suite, suite};
use crate::bed::note;
use crate::lab::{Lab, RUN_DIR};
use crate::net::GITHUB;

pub(super) const SUITE: Suite = suite![SMALL;
    limits_are_properties_of_the_unit,
    root_in_a_container_has_the_listed_capabilities_and_no_other,
    a_job_pings_finds_leaks_and_gets_no_keyring,
    the_listener_and_the_job_are_in_groups_of_their_own,
    open_files_are_as_configured,
    every_place_a_job_can_write_to_is_bounded,
    the_record_of_an_end_has_what_the_kernel_counts,
];

fn limits_are_properties_of_the_unit(lab: &mut Lab) -> Result<()> {
    let status = lab.await_settled(SOON)?;
    for runner in status.runners() {
        for (property, value) in [
            ("MemoryMax", "1073741824"),
            ("MemorySwapMax", "0"),
            ("TasksMax", "2048"),
            ("IOWeight", "100"),
            ("LimitNOFILE", "65536"),
            ("DevicePolicy", "closed"),
            ("Delegate", "yes"),
            ("KillMode", "mixed"),
            ("Slice", "runners-ci.slice"),
            ("OOMPolicy", "continue"),
            ("Restart", "no"),
        ] {
            let found = lab.show(&runner.unit, property)?;
            ensure!(found == value, "{property} of {} is {found}", runner.unit);
        }
        // The unit has no filter that would reach the job: compilers and sanitizers run.
        let inside = in_container(lab, &runner.machine(), &["cat", "/proc/1/status"])?;
        ensure_says(&inside, &["NoNewPrivs:\t0"])?;
    }
    Ok(())
}

// Bits of capabilities(7): CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
// NET_BIND_SERVICE, SYS_CHROOT, SYS_PTRACE, SYS_ADMIN, SETFCAP.
pub(super) const KEPT: [u32; 13] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 19, 21, 31];

fn root_in_a_container_has_the_listed_capabilities_and_no_other(lab: &mut Lab) -> Result<()> {
    let spare = spare(&lab.await_settled(SOON)?)?;
    let status = as_its_root(lab, &spare.machine(), "cat /proc/self/status")?;
    let mask = KEPT.iter().fold(0_u64, |mask, bit| mask | 1 << bit);
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        ensure_says(&status, &[&format!("{set}:\t{mask:016x}")])?;
    }
    // The filter of systemd-nspawn.
    ensure_says(&status, &["Seccomp:\t2"])?;
    // Programs that need the listed capabilities work, and others do not.
    let said = as_its_root(
        lab,
        &spare.machine(),
        "set +e; systemctl is-system-running\n\
         mkdir /tmp/m && mount -t tmpfs none /tmp/m && echo mounted\n\
         touch /tmp/m/file && chown runner /tmp/m/file && stat -c 'owned by %U' /tmp/m/file\n\
         chroot / setpriv --reuid=runner --regid=runner --init-groups id -un\n\
         ip link set lo mtu 1400 2>&1; ip link add d0 type dummy 2>&1\n\
         mknod /tmp/m/null c 1 3 2>&1; ping -c 1 -W 1 127.0.0.1 | tail -n 2",
    )?;
    ensure_says(
        &said,
        &[
            "running",
            "mounted",
            "owned by runner",
            "\nrunner\n",
            "1 received",
        ],
    )?;
    ensure!(said.matches("ot permitted").count() == 3, "{said}");
    Ok(())
}

/// Program that asks for a session keyring. The compiler knows the machine's number of
/// keyctl(2).
const KEYRING: &str = "#include <errno.h>\n#include <stdio.h>\n#include <string.h>\n#include <sys/syscall.h>\n\
    #include <unistd.h>\n\
    int main() { long key = syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, 0); \
    printf(\"keyring: %s\\n\", key < 0 ? strerror(errno) : \"mine\"); }";

const LEAK: &str =
    "#include <stdlib.h>\nint main() { volatile char *p = malloc(42); p = 0; return 0; }";

/// Returns a job that compiles and runs a program that asks for a session keyring.
pub(super) fn keyring_job() -> String {
    format!("cat >keyring.c <<'END'\n{KEYRING}\nEND\ngcc -o keyring keyring.c\n./keyring\n")
}

fn a_job_pings_finds_leaks_and_gets_no_keyring(lab: &mut Lab) -> Result<()> {
    let job = format!(
        "ping -c 1 -W 2 {GITHUB} | tail -n 2\n{}\
         cat >leak.c <<'END'\n{LEAK}\nEND\n\
         gcc -fsanitize=address -o leak leak.c\n\
         ! ./leak 2>leaks; grep SUMMARY leaks || cat leaks",
        keyring_job()
    );
    // LeakSanitizer stops its process by ptrace(2) to search its memory.
    ensure_says(
        &run(lab, &job)?,
        &[
            "1 received",
            "keyring: Operation not permitted",
            "42 byte(s) leaked in 1 allocation(s)",
        ],
    )
}

fn the_listener_and_the_job_are_in_groups_of_their_own(lab: &mut Lab) -> Result<()> {
    let (id, busy) = start_held(lab, "grouped")?;
    // A held job waits by short sleeps, so a process may end between the list and the read.
    let said = in_container(
        lab,
        &busy.machine(),
        &[
            "sh",
            "-c",
            "cd /sys/fs/cgroup/system.slice/github-runner.service\n\
             for group in listener job; do for pid in $(cat $group/cgroup.procs); do\n\
             score=$(cat /proc/$pid/oom_score_adj) && line=$(tr '\\0' ' ' </proc/$pid/cmdline) &&\n\
             [ -n \"$line\" ] && echo \"$group: $score $line\"\n\
             done 2>/dev/null; done; stat -c '%n %U' job job/cgroup.procs cgroup.subtree_control\n\
             cat cgroup.procs | wc -l",
        ],
    )?;
    let of = |group: &str| -> Vec<&str> {
        said.lines()
            .filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "))
            .collect()
    };
    ensure!(
        matches!(of("listener")[..], [listener] if listener.starts_with("0 ") && listener.contains("run --startuptype")),
        "{said}"
    );
    let job = of("job");
    ensure!(
        job.len() > 1 && job.iter().all(|process| process.starts_with("500 ")),
        "{said}"
    );
    ensure_says(
        &said,
        &[
            " worker",
            "job root\njob/cgroup.procs runner\ncgroup.subtree_control root\n0",
        ],
    )?;
    finish_held(lab, id, &busy).map(drop)
}

fn open_files_are_as_configured(lab: &mut Lab) -> Result<()> {
    let said = run(
        lab,
        "ulimit -Sn; ulimit -Hn; ulimit -n 2000000 2>&1 || true",
    )?;
    // A test host may have a lower limit than the pool asks for.
    let most: u64 = lab
        .host()
        .sh("ulimit -Hn")?
        .trim()
        .parse()
        .unwrap_or(u64::MAX);
    let files = most.min(65536);
    ensure_says(&said, &[&format!("{files}\n{files}\n"), "ot permitted"])
}

/// Places that a job of the fixture's pool may fill: mount point, MiB, files.
const BOUNDS: [(&str, u64, u64); 6] = [
    // The layer, of 256 MiB, without the part of the runner's directory.
    ("/", 224, 224 << 8),
    // An eighth of the layer.
    ("/opt/actions-runner", 32, 32 << 8),
    // Half of the runner's memory.
    ("/dev/shm", 512, 512 << 8),
    ("/run/lock", 5, 1024),
    // A tenth of the runner's memory.
    ("/run/user", 103, 103 << 8),
    // A limit of the kernel (mq_overview(7), queues_max).
    ("/dev/mqueue", 0, 256),
];

fn every_place_a_job_can_write_to_is_bounded(lab: &mut Lab) -> Result<()> {
    let script = format!(
        "cat >fill.py <<'END'\n{}\nEND\npython3 fill.py",
        include_str!("fill.py")
    );
    let said = run(lab, &script)?;
    let mut seen = Vec::new();
    for line in said.lines().filter_map(|line| line.strip_prefix("mount ")) {
        let [point, mib, full, files, crowded] = line.split(' ').collect::<Vec<_>>()[..] else {
            anyhow::bail!("{line}");
        };
        let (_, most_mib, most_files) = BOUNDS
            .iter()
            .find(|(known, ..)| *known == point)
            .with_context(|| format!("a job can write to {point}, too: {said}"))?;
        // A message queue's memory is bounded before their number is (RLIMIT_MSGQUEUE).
        let stopped = crowded == "ENOSPC" || (point == "/dev/mqueue" && crowded == "EMFILE");
        ensure!(
            full == "ENOSPC"
                && stopped
                && mib.parse::<u64>()? <= *most_mib
                && files.parse::<u64>()? <= *most_files,
            "{line}"
        );
        seen.push(point);
    }
    ensure!(
        BOUNDS[..5].iter().all(|(point, ..)| seen.contains(point)),
        "{said}"
    );
    // Filesystems that only the container's root can write to have both bounds as well. All of
    // them count as the container's memory, like every filesystem that its root mounts.
    let spare = spare(&lab.await_settled(SOON)?)?;
    let mounts = as_its_root(
        lab,
        &spare.machine(),
        "findmnt --raw --noheadings --types tmpfs,ramfs,ext4,overlay --output TARGET,OPTIONS",
    )?;
    for line in mounts.lines() {
        let (point, options) = line.split_once(' ').context("no options")?;
        let bounded = options.contains("size=") && options.contains("nr_inodes=");
        // An overlay has the bounds of the filesystem below it, which the job has met.
        let is_met = options.contains("upperdir=") && seen.contains(&point);
        ensure!(options.starts_with("ro,") || bounded || is_met, "{line}");
    }
    Ok(())
}

fn the_record_of_an_end_has_what_the_kernel_counts(lab: &mut Lab) -> Result<()> {
    run(lab, "true")?;
    let status = lab.await_settled(SOON)?;
    let ended = status.recent.first().context("nothing has ended")?;
    let records = lab.host().sh(&format!(
        "cat $(ls -t {RUN_DIR}/lives/{}/*.end.json | head -n 1)",
        ended.slot
    ))?;
    let record: Value = serde_json::from_str(&records)?;
    for key in [
        "service_result",
        "exit",
        "memory_peak_bytes",
        "oom_kills",
        "at_ms",
    ] {
        ensure!(record.get(key).is_some(), "no {key} in {records}");
    }
    let controllers = lab
        .host()
        .run(&["cat", "/sys/fs/cgroup/cgroup.controllers"])?;
    if controllers.split_whitespace().any(|name| name == "memory") {
        ensure!(record["memory_peak_bytes"].is_u64(), "{records}");
    } else {
        note(
            "no memory controller here: limits and oom kills are checked as far as they are wired",
        );
    }
    Ok(())
}
