//! Finds processes of slots by their cgroups, as seen from outside the host, and kills them. A search starts
//! no process, so it is fast enough to hit a step of a start that lasts milliseconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::TestHost;

/// Timeout for a step to begin. While jobs flow, a container starts every few seconds.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// A step of a slot's unit that runs our program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// `ExecStart=`, which becomes systemd-nspawn.
    Launch,
    /// The launcher's program that addresses a link when the container is ready.
    Connect,
    /// `ExecStopPost=`.
    Sweep,
}

impl Step {
    fn argument(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Connect => "connect",
            Self::Sweep => "sweep",
        }
    }
}

/// A slot's unit that has a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotUnit {
    /// Machine name: `ci-3`.
    pub(super) machine: String,
    /// Unit name: `runner-ci@3.service`.
    pub(super) name: String,
    cgroup: PathBuf,
}

/// Returns the slots' units that have a cgroup, by machine name.
pub(super) fn units(host: &TestHost) -> Vec<SlotUnit> {
    let slices = host.path("/sys/fs/cgroup/runners.slice");
    let mut found: Vec<SlotUnit> = entries(&slices)
        .into_iter()
        .flat_map(|slice| entries(&slice))
        .filter_map(|cgroup| {
            let name = cgroup.file_name()?.to_string_lossy().into_owned();
            let machine = name.strip_prefix("runner-")?.strip_suffix(".service")?;
            Some(SlotUnit {
                machine: machine.replace('@', "-"),
                name,
                cgroup,
            })
        })
        .collect();
    found.sort_by(|one, other| one.machine.cmp(&other.machine));
    found
}

/// Returns the units whose container has a process 1, with that process's number on this machine.
pub(super) fn inits(host: &TestHost) -> Vec<(SlotUnit, i32)> {
    let init = |unit: SlotUnit| {
        let pids = pids(&unit.cgroup.join("payload/init.scope"));
        let first = pids.into_iter().find(|pid| is_first(*pid))?;
        Some((unit, first))
    };
    units(host).into_iter().filter_map(init).collect()
}

/// Waits for a step to begin, and kills its process `after` that. Returns the machine; `None` if no step
/// began, or if it had ended by then.
pub(super) fn kill_step(host: &TestHost, step: Step, after: Duration) -> Result<Option<String>> {
    let start = Instant::now();
    let old: Vec<i32> = running(host, step)
        .into_iter()
        .map(|(_, pid)| pid)
        .collect();
    while start.elapsed() < STEP_TIMEOUT {
        let new = running(host, step)
            .into_iter()
            .find(|(_, pid)| !old.contains(pid));
        if let Some((unit, pid)) = new {
            std::thread::sleep(after);
            return Ok(sigkill(pid)?.then_some(unit.machine));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(None)
}

/// Sends SIGKILL; false if the process is already gone.
pub(super) fn sigkill(pid: i32) -> Result<bool> {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot kill process {pid}")),
    }
}

fn running(host: &TestHost, step: Step) -> Vec<(SlotUnit, i32)> {
    let step_of = |unit: SlotUnit| {
        // systemd runs ExecStopPost= in a cgroup below the unit's, and the launcher moves its programs to another one.
        let below = [".control", "supervisor"].map(|name| unit.cgroup.join(name));
        let all = [unit.cgroup.clone()].into_iter().chain(below);
        let found = all
            .flat_map(|cgroup| pids(&cgroup))
            .find(|pid| is_step(*pid, step))?;
        Some((unit, found))
    };
    units(host).into_iter().filter_map(step_of).collect()
}

fn is_step(pid: i32, step: Step) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .any(|argument| argument == step.argument().as_bytes())
}

/// Returns true if the process is number 1 of its innermost pid namespace.
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

/// Returns the directories in `dir`; none if it has vanished.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}
