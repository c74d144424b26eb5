//! The control groups of slots: their bounds, and the removal of groups that a runner left.
//!
//! A container's root makes groups below its own. Without bounds, a tree can be too deep for systemd
//! to remove, and the slot's next runner would start inside it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tree::{self, Files};
use crate::config::Place;
use crate::pool::SlotId;
use crate::privileged::error::{OrRefuse, Refusal, RootError};
use crate::privileged::trust;

const ROOT: &str = "/sys/fs/cgroup";
const ALL_POOLS: &str = "runners.slice";

/// Timeout for the removal of what is in one unit's group. A tree within the bounds takes
/// milliseconds; one of an earlier version may be larger, and the next launcher continues.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the directory of the group of a slot's unit.
pub(crate) fn path(id: &SlotId) -> PathBuf {
    Path::new(ROOT)
        .join(ALL_POOLS)
        .join(format!("runners-{}.slice", id.pool))
        .join(id.unit())
}

/// Returns the slots whose units have a group, also those of pools that are no longer configured.
pub(crate) fn seen() -> impl Iterator<Item = SlotId> {
    let list = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten();
    list(Path::new(ROOT).join(ALL_POOLS))
        .flat_map(move |slice| list(slice.path()))
        .filter_map(|unit| SlotId::from_unit(unit.file_name().to_str()?))
}

/// Returns the group of the unit of which this process is a part.
///
/// The process may be in a sub-group for control processes, because the unit delegates.
pub(crate) fn own_unit(own: &str, id: &SlotId) -> Option<PathBuf> {
    let unit = id.unit();
    let mut path = PathBuf::from(ROOT);
    for part in own.split('/').filter(|part| !part.is_empty()) {
        path.push(part);
        if part == unit {
            return Some(path);
        }
    }
    None
}

/// Makes the launcher the only process of its unit's group, and bounds what is made below.
///
/// Without bounds, a tree can be too deep for systemd to remove, or so large that its removal stalls systemd
/// for seconds.
pub(crate) fn claim(place: Place<'_>) -> Result<(), RootError> {
    let id = &place.id();
    let own = trust::own_cgroup()?;
    let failed = |what: String| RootError::plain(Refusal::Leftovers, what);
    let unit = own_unit(&own, id).ok_or_else(|| failed(format!("{own} is not a unit's group")))?;
    remove_below(&unit, &own)?;
    let read = || format!("read {}", unit.display());
    let others =
        fs::read_to_string(unit.join("cgroup.procs")).or_refuse(Refusal::Leftovers, read)?;
    let this = std::process::id().to_string();
    if let Some(other) = others.lines().find(|pid| *pid != this) {
        let unit = unit.display();
        return Err(failed(format!(
            "process {other} of an earlier runner is in {unit}"
        )));
    }
    let parts = &place.pool.limits.shared;
    for (file, bound) in [
        ("cgroup.max.depth", parts.control_group_depth),
        ("cgroup.max.descendants", parts.control_groups),
    ] {
        let file = unit.join(file);
        fs::write(&file, bound.to_string())
            .or_refuse(Refusal::Leftovers, || format!("bound {}", file.display()))?;
    }
    Ok(())
}

/// Removes the groups below a unit's group, except the one of this process, `own`.
pub(crate) fn remove_below(unit: &Path, own: &str) -> Result<(), RootError> {
    let own = Path::new(ROOT).join(own.trim_start_matches('/'));
    let refuse = || format!("remove the control groups below {}", unit.display());
    let mut first = Ok(());
    let deadline = Instant::now() + TIMEOUT;
    for group in fs::read_dir(unit).or_refuse(Refusal::Leftovers, refuse)? {
        let group = group.or_refuse(Refusal::Leftovers, refuse)?.path();
        if group.is_dir() && !own.starts_with(&group) {
            let removed = remove_group(&group, deadline);
            first = first.and(removed.or_refuse(Refusal::Leftovers, || {
                format!("remove the control group {}", group.display())
            }));
        }
    }
    first
}

/// Removes the group of a unit that does not run, and the processes in it.
pub(crate) fn remove(id: &SlotId, deadline: Instant) -> Result<(), RootError> {
    let group = path(id);
    if !group.exists() {
        return Ok(());
    }
    remove_group(&group, deadline).or_refuse(Refusal::Leftovers, || {
        format!("remove the control group {}", group.display())
    })
}

fn remove_group(group: &Path, deadline: Instant) -> io::Result<()> {
    let (Some(parent), Some(name)) = (group.parent(), group.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // Frozen processes die as well. Before Linux 5.14 the file is absent.
    let _ = fs::write(group.join("cgroup.kill"), "1");
    let name = CString::new(name.as_bytes())?;
    tree::remove(
        &fs::File::open(parent)?.into(),
        &name,
        Files::Kernel,
        deadline,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_in_a_sub_group_finds_the_group_of_its_unit() {
        let id = "ci-1".parse().unwrap();
        let below = "/runners.slice/runners-ci.slice/runner-ci@1.service/.control";
        assert_eq!(own_unit(below, &id), Some(path(&id)));
        assert_eq!(own_unit("/user.slice", &id), None);
    }
}
