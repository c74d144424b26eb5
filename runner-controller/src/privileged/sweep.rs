//! The programs that sweep: after one runner, at the daemon's start, and for the operator.
//!
//! Every sweep can be repeated. It continues after a failure and returns all failures.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use capctl::caps::Cap;

use super::cleanup::known::{known_slots, seen_slots};
use super::cleanup::units::{self, LoadedUnit, loaded_units};
use super::cleanup::{groups, slot};
use super::error::{OrRefuse, Refusal, RootError};
use super::sandbox::Sandbox;
use super::{gc_root, own_dir, trust};
use crate::config::{Config, LOG_BUNDLES_DIR};
use crate::pool::{JobResult, SlotId};
use crate::world::{EndRecord, Exit};
use crate::{clock, slot_records};

/// Timeout for the removal of directories and control groups at the daemon's start, which waits for it.
/// The next start continues.
const UNOWNED_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout for the removal of control groups by the operator's clean-up command.
const ALL_TIMEOUT: Duration = Duration::from_mins(1);

/// `ExecStopPost=`: writes the end record, then removes what the runner left on the host, and keeps its log files.
///
/// A deploy may have removed the slot from the configuration meanwhile.
#[must_use]
pub fn sweep(config: &Config, id: &SlotId) -> Vec<RootError> {
    let invocation = match trust::own_unit(id) {
        Ok(invocation) => invocation,
        Err(error) => return vec![error],
    };
    let own = trust::own_cgroup().unwrap_or_default();
    let group = groups::own_unit(&own, id);
    let dir = config.records_dir().join(id.to_string());
    let variable = |name| std::env::var(name).unwrap_or_default();
    let exit = parse_exit(&variable("EXIT_CODE"), &variable("EXIT_STATUS"));
    // A listener that returns its job's result has ended by itself, which is nearly every end.
    let is_result = matches!(exit, Exit::Status(status) if JobResult::of_status(status).is_some());
    let start = slot_records::of(&dir, &invocation).start;
    let end = EndRecord {
        service_result: variable("SERVICE_RESULT"),
        exit,
        memory_peak_bytes: group.as_deref().and_then(memory_peak),
        oom_kills: group.as_deref().and_then(oom_kills).unwrap_or_default(),
        cpu_ms: group.as_deref().and_then(cpu_ms),
        usage: slot_records::take_usage(&dir, &invocation),
        listening_at: slot_records::take_listening(&dir, &invocation),
        stop_requested: !is_result && units::is_being_stopped(id),
        returns_result: start.is_some_and(|start| start.returns_result),
        last_line: slot_records::take_last_line(&dir, &invocation),
        invocation,
        at: clock::now(),
    };
    // The daemon needs the record for the verdict, so it comes before every removal. systemd kills a
    // sweep that takes longer than the pool's stop timeout.
    let recorded = slot_records::write_end(&dir, &end).or_refuse(Refusal::Records, || {
        format!("write the end record to {}", dir.display())
    });
    let mut failures: Vec<RootError> = recorded.err().into_iter().collect();
    // These need privileges that the sandbox takes away. A sweep continues without a sandbox.
    let logs = own_dir::open(config, id, &end).unwrap_or_else(|error| {
        failures.push(error);
        None
    });
    failures.extend(slot::remove_mount_points(config, id));
    if let Some(unit) = &group {
        failures.extend(groups::remove_below(unit, &own).err());
    }
    failures.extend(slot::remove_rules(id).err());
    let mut sandbox = Sandbox::with(&[Cap::NET_ADMIN]).removes(gc_root::ROOTS);
    if logs.is_some() {
        sandbox = sandbox.writes(LOG_BUNDLES_DIR);
    }
    let entered = sandbox.enter();
    failures.extend(slot::remove(id));
    match (entered, logs) {
        (Ok(()), Some(logs)) => failures.extend(logs.write().err()),
        (Ok(()), None) => {}
        // A job's text is never read with root's privileges.
        (Err(error), _) => failures.push(error),
    }
    failures
}

/// `ExecStartPre=+` of the daemon: sweeps slots that are no longer configured and do not run, with
/// their records and socket directories. Removes the mount points of all slots that do not run, because
/// an earlier version leaves them, and the Nix store's roots, because a power failure leaves them.
#[must_use]
pub fn sweep_unowned(config: &Config) -> Vec<RootError> {
    let owned: BTreeSet<SlotId> = config.slots().collect();
    let held = gc_root::held();
    let mounted = own_dir::mounted(config);
    let unowned: BTreeSet<SlotId> = seen_slots(config).difference(&owned).cloned().collect();
    if unowned.is_empty() && held.is_empty() && mounted.is_empty() {
        return Vec::new();
    }
    let running = match loaded_units() {
        Ok(units) => units,
        Err(error) => return vec![error],
    };
    let is_running = |id: &SlotId| {
        running
            .iter()
            .any(|unit| unit.slot == *id && unit.is_alive())
    };
    // The next start of the daemon sweeps a slot that still runs.
    let unowned: Vec<SlotId> = unowned.into_iter().filter(|id| !is_running(id)).collect();
    let deadline = Instant::now() + UNOWNED_TIMEOUT;
    let mut failures: Vec<RootError> = mounted
        .iter()
        .filter(|id| !is_running(id))
        .chain(&unowned)
        .flat_map(|id| slot::remove_mount_points(config, id))
        .collect();
    for id in &unowned {
        failures.extend(groups::remove(id, deadline).err());
        failures.extend(slot::remove_rules(id).err());
        let sockets = config.slots_dir().join(id.to_string());
        failures.extend(slot::clear_as_owner(&sockets, deadline).err());
    }
    let sandbox = Sandbox::with(&[Cap::NET_ADMIN])
        .removes(config.records_dir())
        .removes(config.slots_dir())
        .removes(gc_root::ROOTS);
    failures.extend(sandbox.enter().err());
    for id in held.iter().filter(|id| !is_running(id)) {
        failures.extend(slot::remove_gc_root(id).err());
    }
    for id in unowned {
        failures.extend(slot::remove(&id));
        for parent in [config.records_dir(), config.slots_dir()] {
            let dir = parent.join(id.to_string());
            failures.extend(slot::remove_dir(&dir, deadline).err());
        }
    }
    failures
}

/// Returns the slots whose units run, configured or not.
pub fn alive_slots() -> Result<Vec<SlotId>, RootError> {
    let alive = loaded_units()?.into_iter().filter(LoadedUnit::is_alive);
    Ok(alive.map(|unit| unit.slot).collect())
}

/// Sweeps every known slot whose unit does not run, for the operator's clean-up command.
#[must_use]
pub fn sweep_all(config: &Config) -> Vec<RootError> {
    let running = match loaded_units() {
        Ok(units) => units,
        Err(error) => return vec![error],
    };
    let deadline = Instant::now() + ALL_TIMEOUT;
    known_slots(config)
        .iter()
        .filter(|id| {
            !running
                .iter()
                .any(|unit| unit.slot == **id && unit.is_alive())
        })
        .flat_map(|id| slot::remove_all(config, id, deadline))
        .collect()
}

/// Parses systemd's `$EXIT_CODE` and `$EXIT_STATUS` (systemd.exec(5)).
pub(crate) fn parse_exit(code: &str, status: &str) -> Exit {
    match code {
        "exited" => status.parse().map_or(Exit::Unknown, Exit::Status),
        "killed" | "dumped" => Exit::Signal(status.to_owned()),
        _ => Exit::Unknown,
    }
}

/// Returns the largest use of memory. Absent without the memory controller, and before Linux 5.19.
fn memory_peak(cgroup: &Path) -> Option<u64> {
    fs::read_to_string(cgroup.join("memory.peak"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Returns the number of processes that the kernel killed because memory was exhausted.
fn oom_kills(cgroup: &Path) -> Option<u64> {
    fs::read_to_string(cgroup.join("memory.events"))
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .parse()
        .ok()
}

/// Returns the processor time of the group and all groups below it. The kernel counts it without any
/// controller (`cpu.stat` in cgroup-v2.rst).
fn cpu_ms(cgroup: &Path) -> Option<u64> {
    let usage_us: u64 = fs::read_to_string(cgroup.join("cpu.stat"))
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "))?
        .parse()
        .ok()?;
    Some(usage_us / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_parsed_from_systemds_two_variables() {
        for (code, status, wanted) in [
            ("exited", "0", Exit::Status(0)),
            ("exited", "82", Exit::Status(82)),
            ("killed", "KILL", Exit::Signal("KILL".into())),
            ("dumped", "SEGV", Exit::Signal("SEGV".into())),
            ("", "", Exit::Unknown),
            ("exited", "CREDENTIALS", Exit::Unknown),
        ] {
            assert_eq!(parse_exit(code, status), wanted, "{code} {status}");
        }
    }

    #[test]
    fn memory_peak_oom_kills_and_processor_time_are_read_from_the_control_group() {
        let dir = tempfile::tempdir().unwrap();
        let events = "low 0\nhigh 3\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n";
        fs::write(dir.path().join("memory.events"), events).unwrap();
        fs::write(dir.path().join("memory.peak"), "1048576\n").unwrap();
        let cpu = "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n";
        fs::write(dir.path().join("cpu.stat"), cpu).unwrap();
        assert_eq!(cpu_ms(dir.path()), Some(1_234));
        assert_eq!(cpu_ms(Path::new("/nowhere")), None);
        assert_eq!(oom_kills(dir.path()), Some(2));
        assert_eq!(memory_peak(dir.path()), Some(1 << 20));
        assert_eq!(oom_kills(Path::new("/nowhere")), None);
    }
}
