//! Finds processes of slots by their cgroups, as seen from outside the host, and kills them. A look
//! costs no process, so a step of a start that lasts milliseconds can be hit.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::TestHost;

/// How long to wait for a step to begin. With jobs flowing there is a start every few seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// A step of a life that is a program of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// `ExecStart=`, which becomes systemd-nspawn.
    Launch,
    /// `ExecStartPost=`.
    Connect,
    /// `ExecStopPost=`.
    Sweep,
}

impl Step {
    fn word(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Connect => "connect",
            Self::Sweep => "sweep",
        }
    }
}

/// A slot's unit that has processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// `ci-3`.
    pub(super) machine: String,
    /// `runner-ci@3.service`.
    pub(super) name: String,
    cgroup: PathBuf,
}

/// The slots' units that have a cgroup, in order.
pub(super) fn units(host: &TestHost) -> Vec<Unit> {
    let slices = host.path("/sys/fs/cgroup/runners.slice");
    let mut found: Vec<Unit> = entries(&slices)
        .into_iter()
        .flat_map(|slice| entries(&slice))
        .filter_map(|cgroup| {
            let name = cgroup.file_name()?.to_string_lossy().into_owned();
            let machine = name.strip_prefix("runner-")?.strip_suffix(".service")?;
            Some(Unit {
                machine: machine.replace('@', "-"),
                name,
                cgroup,
            })
        })
        .collect();
    found.sort_by(|one, other| one.machine.cmp(&other.machine));
    found
}

/// The units whose container has a process 1, with that process's number out here.
pub(super) fn inits(host: &TestHost) -> Vec<(Unit, i32)> {
    let init = |unit: Unit| {
        let pids = pids(&unit.cgroup.join("payload/init.scope"));
        let first = pids.into_iter().find(|pid| is_first(*pid))?;
        Some((unit, first))
    };
    units(host).into_iter().filter_map(init).collect()
}

/// Waits for a step to begin, lets it go on for so long, and kills it, whatever it has become.
/// Returns whose step it was; nobody's if none began, or if it was over by then.
pub(super) fn ambush(host: &TestHost, step: Step, after: Duration) -> Result<Option<String>> {
    let start = Instant::now();
    let old: Vec<i32> = running(host, step)
        .into_iter()
        .map(|(_, pid)| pid)
        .collect();
    while start.elapsed() < PATIENCE {
        let new = running(host, step)
            .into_iter()
            .find(|(_, pid)| !old.contains(pid));
        if let Some((unit, pid)) = new {
            std::thread::sleep(after);
            return Ok(slay(pid)?.then_some(unit.machine));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(None)
}

/// Sends SIGKILL; false if there is no such process any more.
pub(super) fn slay(pid: i32) -> Result<bool> {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("kill process {pid}")),
    }
}

fn running(host: &TestHost, step: Step) -> Vec<(Unit, i32)> {
    let of = |unit: Unit| {
        // systemd runs what comes before and after in a cgroup below.
        let all = [unit.cgroup.clone(), unit.cgroup.join(".control")];
        let found = all
            .iter()
            .flat_map(|cgroup| pids(cgroup))
            .find(|pid| is_step(*pid, step))?;
        Some((unit, found))
    };
    units(host).into_iter().filter_map(of).collect()
}

fn is_step(pid: i32, step: Step) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .any(|word| word == step.word().as_bytes())
}

/// Whether it is process 1 of the innermost pid namespace that it is in.
fn is_first(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.and_then(|numbers| numbers.split_whitespace().last()) == Some("1")
}

fn pids(cgroup: &Path) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid > 0)
        .collect()
}

/// What is in a directory; what vanished meanwhile is empty.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}
