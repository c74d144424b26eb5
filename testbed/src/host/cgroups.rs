//! The host's cgroups on the outer machine: made for it, and removed with whatever lives in them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bed::Bed;
use crate::wait::{Seen, wait_until};

/// Returns the mount of the version 2 hierarchy, and that of systemd's version 1 hierarchy if it exists.
fn cgroup_mounts() -> Result<Vec<(PathBuf, bool)>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            match fields.as_slice() {
                [_, path, "cgroup2", ..] => Some((PathBuf::from(path), true)),
                [_, path, "cgroup", options, ..] if options.contains("name=systemd") => {
                    Some((PathBuf::from(path), false))
                }
                _ => None,
            }
        })
        .collect())
}

pub(super) fn own_cgroups(bed: &Bed) -> Result<Vec<PathBuf>> {
    Ok(cgroup_mounts()?
        .into_iter()
        .map(|(mount, _)| mount.join(bed.machine_name()))
        .collect())
}

/// Two hosts that start from one cgroup would share its children, and stop each other's services.
pub(super) fn make_cgroups(bed: &Bed) -> Result<Vec<PathBuf>> {
    let mounts = cgroup_mounts()?;
    ensure!(
        mounts.iter().any(|(_, unified)| *unified),
        "no cgroup2 filesystem is mounted; `mount -t cgroup2 cgroup2 /sys/fs/cgroup` makes one"
    );
    let mut made = Vec::new();
    for (mount, unified) in mounts {
        if unified {
            // So that limits bite in the host too. Refused where the controllers are in use by the
            // version 1 hierarchies, or the hierarchy is not ours to arrange.
            for controller in ["cpu", "io", "memory", "pids"] {
                fs::write(
                    mount.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                )
                .ok();
            }
        }
        let cgroup = mount.join(bed.machine_name());
        fs::create_dir_all(&cgroup).with_context(|| format!("make cgroup {}", cgroup.display()))?;
        made.push(cgroup);
    }
    Ok(made)
}

pub(super) fn cgroup_of(pid: i32) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = text
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .context("the host has no cgroup2")?;
    let (mount, _) = cgroup_mounts()?
        .into_iter()
        .find(|(_, unified)| *unified)
        .context("no cgroup2 is mounted")?;
    Ok(mount.join(path))
}

/// A killed host leaves the cgroups of its units, which the next one would take for its own.
pub(super) fn clear_cgroups(bed: &Bed) -> Result<()> {
    for cgroup in own_cgroups(bed)?.iter().filter(|cgroup| cgroup.is_dir()) {
        end_processes(cgroup)?;
        remove_cgroup(cgroup)?;
    }
    Ok(())
}

/// A host whose state file was never written still has its processes in our cgroup.
fn end_processes(cgroup: &Path) -> Result<()> {
    wait_until(
        "the last processes of the host to end",
        Duration::from_secs(10),
        || {
            let pids = processes_below(cgroup)?;
            for pid in &pids {
                kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
            }
            Ok(if pids.is_empty() {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{pids:?}"))
            })
        },
    )
}

/// Returns the processes in a cgroup and below it.
pub(super) fn processes_below(cgroup: &Path) -> Result<Vec<i32>> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != 0)
        .collect();
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            pids.extend(processes_below(&entry.path()).unwrap_or_default());
        }
    }
    Ok(pids)
}

fn remove_cgroup(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    remove_when_free(cgroup)
}

/// A cgroup whose last process has just died is busy for a moment longer.
fn remove_when_free(cgroup: &Path) -> Result<()> {
    wait_until(
        "a cgroup to be free",
        Duration::from_secs(5),
        || match fs::remove_dir(cgroup) {
            Ok(()) => Ok(Seen::Done(())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Seen::Done(())),
            Err(error) => Ok(Seen::NotYet(format!("{}: {error}", cgroup.display()))),
        },
    )
}
