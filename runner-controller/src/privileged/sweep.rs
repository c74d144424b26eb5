//! What a slot leaves on the host, and its removal. All of it is found by the slot's name, all of it
//! may be repeated, and a failure stops nothing: every removal is tried and every failure is told.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use capctl::caps::Cap;

use super::cleanup::known::{known_slots, seen_slots};
use super::cleanup::slot::{
    absent_is_fine, let_go, remove, remove_all, remove_mount_points, removing,
};
use super::cleanup::units::loaded_units;
use super::error::{OrRefuse, Refusal, RootError};
use super::sandbox::Sandbox;
use super::{gc_root, trust};
use crate::config::{Config, Place};
use crate::pool::SlotId;
use crate::world::{EndRecord, Exit};
use crate::{clock, slot_records};

/// `ExecStopPost=`: records how the life ended, then removes what it left. Goes on past a failure
/// and returns all of them; safe to repeat.
#[must_use]
pub fn sweep(place: Place<'_>) -> Vec<RootError> {
    let invocation = match trust::own_unit(&place.id()) {
        Ok(invocation) => invocation,
        Err(why) => return vec![why],
    };
    let memory = trust::own_cgroup()
        .ok()
        .and_then(|cgroup| unit_cgroup(&cgroup, &place.id()));
    let dir = place.records_dir();
    // What takes the whole of root comes before the rest of it is given up. A sweep that cannot do
    // that goes on: without the record, the daemon would not know how the life ended.
    let mut failed = remove_mount_points(&place.id());
    let mut cage = Sandbox::with(&[Cap::NET_ADMIN])
        .writes(&dir)
        .removes(gc_root::ROOTS);
    if let Some(memory) = &memory {
        cage = cage.reads(memory);
    }
    failed.extend(cage.enter().err());
    let variable = |name| std::env::var(name).unwrap_or_default();
    let end = EndRecord {
        invocation,
        service_result: variable("SERVICE_RESULT"),
        exit: exit(&variable("EXIT_CODE"), &variable("EXIT_STATUS")),
        memory_peak_bytes: memory.as_deref().and_then(memory_peak),
        oom_kills: memory.as_deref().and_then(oom_kills).unwrap_or_default(),
        at: clock::now(),
    };
    // The record first: it is what the daemon waits for, and the sweep may take its time.
    let recorded = slot_records::write_end(&dir, &end).or_refuse(Refusal::Records, || {
        format!("write the end record to {}", dir.display())
    });
    failed.extend(recorded.err());
    failed.extend(remove(&place.id()));
    failed
}

/// `ExecStartPre=+` of the daemon: sweeps slots that no pool has any more and whose unit does not
/// run, with their records and socket directories. Of slots that a pool has, what a power cut left
/// in the Nix store's keeping.
#[must_use]
pub fn sweep_unowned(config: &Config) -> Vec<RootError> {
    let owned: BTreeSet<SlotId> = config.slots().collect();
    let held = gc_root::held();
    let unowned: BTreeSet<SlotId> = seen_slots(config).difference(&owned).cloned().collect();
    if unowned.is_empty() && held.is_empty() {
        return Vec::new();
    }
    let running = match loaded_units() {
        Ok(units) => units,
        Err(why) => return vec![why],
    };
    let runners = |id: &SlotId| {
        running
            .iter()
            .any(|unit| unit.slot == *id && unit.is_alive())
    };
    // One that lives finishes on its own, and the next start of the daemon sweeps it.
    let unowned: Vec<SlotId> = unowned.into_iter().filter(|id| !runners(id)).collect();
    let mut failed: Vec<RootError> = unowned.iter().flat_map(remove_mount_points).collect();
    // The socket directories are the daemon's user's.
    let cage = Sandbox::with(&[Cap::DAC_OVERRIDE, Cap::NET_ADMIN])
        .removes(config.records_dir())
        .removes(config.slots_dir())
        .removes(gc_root::ROOTS);
    failed.extend(cage.enter().err());
    for id in held.iter().filter(|id| !runners(id)) {
        failed.extend(let_go(id).err());
    }
    for id in unowned {
        failed.extend(remove(&id));
        for parent in [config.records_dir(), config.slots_dir()] {
            let dir = parent.join(id.to_string());
            // Follows no symlink, whatever the daemon's user made in there.
            let removed = absent_is_fine(fs::remove_dir_all(&dir));
            let removed = removed.or_refuse(Refusal::Leftovers, || removing(&dir));
            failed.extend(removed.err());
        }
    }
    failed
}

/// Sweeps every slot that is configured or was seen and whose unit does not run.
#[must_use]
pub fn sweep_all(config: &Config) -> Vec<RootError> {
    let running = match loaded_units() {
        Ok(units) => units,
        Err(why) => return vec![why],
    };
    known_slots(config)
        .iter()
        .filter(|id| {
            !running
                .iter()
                .any(|unit| unit.slot == **id && unit.is_alive())
        })
        .flat_map(remove_all)
        .collect()
}

/// systemd's `$EXIT_CODE` and `$EXIT_STATUS` (systemd.exec(5)).
pub(crate) fn exit(code: &str, status: &str) -> Exit {
    match code {
        "exited" => status.parse().map_or(Exit::Unknown, Exit::Status),
        "killed" | "dumped" => Exit::Signal(status.to_owned()),
        _ => Exit::Unknown,
    }
}

/// The unit's own directory: ours may be a sub-group for control processes, as the unit delegates.
fn unit_cgroup(own: &str, id: &SlotId) -> Option<PathBuf> {
    let unit = id.unit();
    let mut path = PathBuf::from("/sys/fs/cgroup");
    for part in own.split('/').filter(|part| !part.is_empty()) {
        path.push(part);
        if part == unit {
            return Some(path);
        }
    }
    None
}

/// Absent without the memory controller, or on kernels before 5.19.
fn memory_peak(cgroup: &Path) -> Option<u64> {
    fs::read_to_string(cgroup.join("memory.peak"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn oom_kills(cgroup: &Path) -> Option<u64> {
    fs::read_to_string(cgroup.join("memory.events"))
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemds_two_variables_say_how_it_ended() {
        for (code, status, wanted) in [
            ("exited", "0", Exit::Status(0)),
            ("exited", "82", Exit::Status(82)),
            ("killed", "KILL", Exit::Signal("KILL".into())),
            ("dumped", "SEGV", Exit::Signal("SEGV".into())),
            ("", "", Exit::Unknown),
            ("exited", "CREDENTIALS", Exit::Unknown),
        ] {
            assert_eq!(exit(code, status), wanted, "{code} {status}");
        }
    }

    #[test]
    fn memory_is_read_from_the_unit_and_not_from_its_control_group() {
        let id = "ci-1".parse().unwrap();
        let below = "/runners.slice/runners-ci.slice/runner-ci@1.service/.control";
        let wanted = "/sys/fs/cgroup/runners.slice/runners-ci.slice/runner-ci@1.service";
        assert_eq!(unit_cgroup(below, &id), Some(wanted.into()));
        assert_eq!(unit_cgroup("/user.slice", &id), None);
    }

    #[test]
    fn oom_kills_are_found_among_the_events() {
        let dir = tempfile::tempdir().unwrap();
        let events = "low 0\nhigh 3\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n";
        fs::write(dir.path().join("memory.events"), events).unwrap();
        fs::write(dir.path().join("memory.peak"), "1048576\n").unwrap();
        assert_eq!(oom_kills(dir.path()), Some(2));
        assert_eq!(memory_peak(dir.path()), Some(1 << 20));
        assert_eq!(oom_kills(Path::new("/nowhere")), None);
    }
}
