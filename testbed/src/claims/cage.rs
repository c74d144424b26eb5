//! Rights that root's short programs keep, and rights that the daemon's unit leaves it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use status::Verdict;

use super::common::{SOON, daemon_pid, ensure_says, run, spare, stop_all};
use super::fixture::SMALL;
use super::suite::{Suite, suite};
use crate::bed::note;
use crate::lab::{DAEMON, Lab, RUN_DIR};
use crate::readings::summary;
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![SMALL;
    sweep_keeps_few_rights_of_root,
    connect_keeps_few_rights_of_root,
    a_container_without_a_network_ends_at_once,
    a_sweep_of_unowned_slots_keeps_few_rights_of_root,
    restrictions_of_a_unit_do_not_reach_a_job,
    the_daemons_unit_is_closed,
    the_daemons_memory_is_in_no_core_dump,
];

const PROGRAM: &str = "/usr/local/bin/runner-controller";
const DROP_IN: &str = "/run/systemd/system/runner-ci@.service.d/traced.conf";

/// Bit of `CAP_NET_ADMIN` in `linux/capability.h`.
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const SYS_RESOURCE: u64 = 1 << 24;

/// Returns a command line that stops one of root's programs when it enters a namespace and at its end, so
/// that its rights can be read from /proc.
fn traced(command: &str) -> String {
    format!("{} {PROGRAM} {command}", strace(command))
}

fn strace(command: &str) -> String {
    format!(
        "strace --follow-forks --quiet=all --output={} --trace=landlock_restrict_self,setns,exit_group \
         --inject=setns:delay_enter=3000000 --inject=exit_group:delay_enter=6000000",
        trace_of(command)
    )
}

/// Returns a pattern for the command line of one of root's programs.
fn pattern(command: &str) -> String {
    format!("^{PROGRAM}( --config [^ ]*)? {command}")
}

fn trace_of(command: &str) -> String {
    let name = command.split(' ').next().unwrap_or(command);
    format!("/run/testbed-{name}.strace")
}

/// Waits until such a program runs in its sandbox with exactly these capabilities.
fn ensure_caged(lab: &Lab, command: &str, capabilities: u64) -> Result<()> {
    let find = format!(
        "for pid in $(pgrep --full '{}'); do cat /proc/$pid/status; done 2>/dev/null; true",
        pattern(command)
    );
    let wanted = [
        ("NoNewPrivs:", "1".to_owned()),
        ("Seccomp:", "2".to_owned()),
        ("CapInh:", format!("{:016x}", 0)),
        ("CapAmb:", format!("{:016x}", 0)),
        ("CapBnd:", format!("{capabilities:016x}")),
        ("CapPrm:", format!("{capabilities:016x}")),
        ("CapEff:", format!("{capabilities:016x}")),
    ];
    let mut seen = BTreeSet::new();
    wait_until(&format!("{command} in its cage"), SOON, || {
        let status = lab.host().sh(&find)?;
        let effective = status.lines().find(|line| line.starts_with("CapEff:"));
        seen.extend(effective.map(str::to_owned));
        let is = |(name, value): &(&str, String)| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .is_some_and(|found| found.trim() == value)
        };
        Ok(if wanted.iter().all(is) {
            Seen::Done(())
        } else {
            let sets = seen.iter().cloned().collect::<Vec<_>>().join(", ");
            Seen::NotYet(format!("{sets} so far; now {status}"))
        })
    })?;
    // Landlock's rules cannot be read from /proc.
    let trace = trace_of(command);
    wait_until("the end of it", SOON, || {
        let text = lab.host().sh(&format!("cat {trace}"))?;
        Ok(
            if text.contains("landlock_restrict_self(") && text.contains("= 0") {
                Seen::Done(())
            } else {
                Seen::NotYet(text)
            },
        )
    })
}

/// `ExecStopPost=` of a spare.
fn sweep_keeps_few_rights_of_root(lab: &mut Lab) -> Result<()> {
    let command = "sweep ci";
    let traced = traced(&format!("{command} %i"));
    let drop_in = format!("[Service]\nExecStopPost=\nExecStopPost={traced}\n");
    let unit = spare(&lab.await_settled(SOON)?)?.unit;
    lab.host().write(DROP_IN, drop_in.as_bytes(), 0o644)?;
    lab.host().run(&["systemctl", "daemon-reload"])?;
    let outcome = lab
        .host()
        .run(&["systemctl", "--no-block", "stop", &unit])
        .and_then(|_| ensure_caged(lab, command, NET_ADMIN));
    lab.host().run(&["rm", DROP_IN])?;
    lab.host().run(&["systemctl", "daemon-reload"])?;
    outcome?;
    lab.await_settled(SOON).map(drop)
}

/// The launcher of the container that replaces a spare starts it. It waits for the container, so it can be stopped until
/// strace has it.
fn connect_keeps_few_rights_of_root(lab: &mut Lab) -> Result<()> {
    let command = "connect ci";
    let attach = format!(
        "until pid=$(pgrep --full '{}'); do :; done; kill -STOP $pid; \
         {} --attach=$pid & sleep 1; kill -CONT $pid; wait",
        pattern(command),
        strace(command)
    );
    let unit = spare(&lab.await_settled(SOON)?)?.unit;
    lab.host().run(&[
        "systemd-run",
        "--quiet",
        "--collect",
        "--unit=testbed-connect.service",
        "sh",
        "-c",
        &attach,
    ])?;
    lab.host()
        .run(&["systemctl", "--no-block", "stop", &unit])?;
    // The second is in the container's user namespace, where every capability would be its own.
    for capabilities in [NET_ADMIN | SYS_ADMIN, SYS_RESOURCE] {
        ensure_caged(lab, command, capabilities)?;
    }
    lab.await_settled(SOON).map(drop)
}

/// Its `connect` was killed. Nothing else would tell systemd before the boot's timeout.
///
/// The container may be at any point of its boot, so this is tried often. If `connect` was done before it was killed,
/// the runner has a network, and counts for nothing.
fn a_container_without_a_network_ends_at_once(lab: &mut Lab) -> Result<()> {
    const ENDS: usize = 3;
    const LIMIT: Duration = Duration::from_mins(1);
    let kill = format!(
        "while :; do pid=$(pgrep --full '{}') && kill -KILL $pid; done",
        pattern("connect ci")
    );
    let begun = lab.await_settled(SOON)?.at_unix_ms;
    let killer = "testbed-kill.service";
    lab.host().run(&[
        "systemd-run",
        "--quiet",
        "--collect",
        "--nice=-20",
        &format!("--unit={killer}"),
        "sh",
        "-c",
        &kill,
    ])?;
    let outcome = wait_until("boots that failed", LIMIT, || {
        let status = lab.look()?;
        let recent = status.recent.iter();
        let failed = recent
            .filter(|ended| ended.ended_unix_ms > begun && ended.verdict == Verdict::BootFailed);
        let failed = failed.count();
        if failed >= ENDS {
            return Ok(Seen::Done(()));
        }
        if let Ok(spare) = spare(&status) {
            lab.host()
                .run(&["systemctl", "--no-block", "stop", &spare.unit])?;
        }
        Ok(Seen::NotYet(format!(
            "{failed} so far; {}",
            summary(&status)
        )))
    });
    lab.host().run(&["systemctl", "stop", killer])?;
    outcome?;
    let status = lab.await_settled(SOON)?;
    let late = status
        .recent
        .iter()
        .find(|ended| ended.ended_unix_ms > begun && ended.verdict == Verdict::BootTimeout);
    ensure!(late.is_none(), "{late:?}");
    Ok(())
}

fn a_sweep_of_unowned_slots_keeps_few_rights_of_root(lab: &mut Lab) -> Result<()> {
    let dirs = format!("{RUN_DIR}/lives/gone-7 {RUN_DIR}/slots/gone-7");
    lab.host().sh(&format!(
        "install --directory --owner=runner-controller {dirs} && touch {RUN_DIR}/slots/gone-7/jit.sock"
    ))?;
    lab.host().run(&[
        "systemd-run",
        "--quiet",
        "--collect",
        "--unit=testbed-sweep-unowned.service",
        "sh",
        "-c",
        &traced("sweep-unowned"),
    ])?;
    ensure_caged(lab, "sweep-unowned", NET_ADMIN)?;
    let left = lab
        .host()
        .sh(&format!("ls -d {dirs} 2>/dev/null || true"))?;
    ensure!(left.is_empty(), "still there: {left}");
    Ok(())
}

/// A job that needs what a unit's restrictions often forbid. It prints a line for each thing
/// that worked. `LeakSanitizer` stops its process with ptrace, and the rest runs below strace.
const TRACED: &str = r#"
cd "$(mktemp -d)"
echo "as $(id -un)"
grep NoNewPrivs /proc/self/status
cat >leak.c <<'END'
#include <stdlib.h>
int main(void) { char *volatile lost = malloc(77); lost = 0; return lost != 0; }
END
cat >wrong.c <<'END'
#include <stdlib.h>
int main(int argc, char **argv) {
    int sum = 2147483647;
    sum += argc;
    char *freed = malloc(9);
    free(freed);
    return freed[argc] + sum + !argv;
}
END
gcc -g -fsanitize=address,undefined leak.c -o leak
gcc -g -fsanitize=address,undefined wrong.c -o wrong
cat >hot.js <<'END'
const status = require("child_process").execFileSync("cat", ["/proc/self/status"]).toString();
function hot(n) { let sum = 0; for (let i = 0; i < n; i++) sum = (sum + i * i) | 0; return sum; }
%PrepareFunctionForOptimization(hot);
hot(10);
%OptimizeFunctionOnNextCall(hot);
hot(10);
const machineCode = (%GetOptimizationStatus(hot) & 16) !== 0;
console.log(`node: machine code ${machineCode}, its child traced ${!status.includes("TracerPid:\t0")}`);
END
./leak 2>&1 | grep -o 'SUMMARY: .* leaked\|LeakSanitizer has .*' || true
ASAN_OPTIONS=detect_leaks=0 strace -f -o wrong.trace ./wrong 2>&1 |
    grep -o 'runtime error: signed integer overflow\|ERROR: AddressSanitizer: [a-z-]*' || true
strace -f -o node.trace node --allow-natives-syntax hot.js 2>&1 | grep '^node: ' || true
"#;

const TRACED_SAYS: &[&str] = &[
    "as runner",
    "NoNewPrivs:\t0",
    "SUMMARY: AddressSanitizer: 77 byte(s) leaked",
    "runtime error: signed integer overflow",
    "ERROR: AddressSanitizer: heap-use-after-free",
    "node: machine code true, its child traced true",
];

/// Restrictions that a slot's template would have if it were as closed as other units.
const CLOSED_TEMPLATE: &str = "\
[Service]
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
SystemCallFilter=~ptrace
SystemCallErrorNumber=EPERM
";

fn restrictions_of_a_unit_do_not_reach_a_job(lab: &mut Lab) -> Result<()> {
    ensure_says(&run(lab, TRACED)?, TRACED_SAYS)?;
    // The control: with these restrictions the job fails.
    let said = with_drop_in(lab, CLOSED_TEMPLATE, |lab| run(lab, TRACED))?;
    for line in &TRACED_SAYS[1..] {
        ensure!(!said.contains(line), "{line:?} in spite of a wall: {said}");
    }
    Ok(())
}

/// Runs an action while every container's unit has a drop-in.
fn with_drop_in<T>(lab: &Lab, text: &str, act: impl FnOnce(&Lab) -> Result<T>) -> Result<T> {
    let start_anew = || {
        stop_all(lab)?;
        lab.host().run(&["systemctl", "daemon-reload"])?;
        lab.start()?;
        lab.await_settled(SOON)
    };
    lab.host().write(DROP_IN, text.as_bytes(), 0o644)?;
    let outcome = start_anew().and_then(|_| act(lab));
    lab.host().run(&["rm", DROP_IN])?;
    let restored = start_anew();
    let done = outcome?;
    restored.map(|_| done)
}

/// Maximum exposure of the daemon's unit by `systemd-analyze security`, of 10.
const EXPOSURE: f64 = 1.5;
/// Maximum exposure of the firewall's unit, which is root with two capabilities over the host's
/// network.
const FIREWALL_EXPOSURE: f64 = 2.5;

fn the_daemons_unit_is_closed(lab: &mut Lab) -> Result<()> {
    for (unit, most) in [
        (DAEMON, EXPOSURE),
        ("runner-controller-firewall.service", FIREWALL_EXPOSURE),
        ("runner-controller-mounts.service", EXPOSURE),
    ] {
        let report = lab
            .host()
            .run(&["systemd-analyze", "security", "--no-pager", unit])?;
        // → Overall exposure level for runner-controller.service: 1.3 OK
        let exposure: f64 = report
            .lines()
            .find_map(|line| {
                line.split_once("Overall exposure level for ")?
                    .1
                    .split_once(": ")
            })
            .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
            .with_context(|| format!("no exposure in: {report}"))?;
        note(&format!("{unit}: exposure {exposure} of 10"));
        ensure!(exposure <= most, "{exposure} is more than {most}: {report}");
    }
    Ok(())
}

fn the_daemons_memory_is_in_no_core_dump(lab: &mut Lab) -> Result<()> {
    let pid = daemon_pid(lab)?;
    // The kernel gives the files of a process that is not dumpable to root (proc_pid(5)).
    let owner = lab
        .host()
        .run(&["stat", "--format=%U", &format!("/proc/{pid}/environ")])?;
    ensure!(owner.trim() == "root", "{owner} may read its memory");
    let limit = lab.show(DAEMON, "LimitCORE")?;
    ensure!(limit == "0", "LimitCORE is {limit}");
    Ok(())
}
