//! The log files of a runner's own directory, which root keeps after the runner's end.
//!
//! The directory is a filesystem in memory. The launcher mounts it on the host, too, where only root can enter it, and
//! where no program in it can be executed. So it outlives the container until the sweep, whatever ended the container.
//!
//! Everything in it is a job's: names, kinds, sizes and text. `files` opens a bounded number of regular files, before
//! the sweep gives up its privileges. `text` makes a bundle's text of them in the sandbox.

mod files;
mod text;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use rustix::fs::statvfs;

use super::error::{OrRefuse, Refusal, RootError};
use crate::config::{ByteSize, Config, KeptLogs, LOG_BUNDLES_DIR, Place};
use crate::log_bundles::{self, BundleName, Limits};
use crate::pool::{JobResult, SlotId};
use crate::world::{EndRecord, Exit};
use crate::{clock, redact};

#[cfg(any(test, fuzzing))]
pub(super) use text::try_text;

/// Maximum of the default floor; see `Reserve` in `pool`.
const MAX_FLOOR: u64 = 256 << 20;

/// Returns the slot's mount point.
pub(super) fn path(config: &Config, id: &SlotId) -> PathBuf {
    config.own_dirs().join(id.to_string())
}

/// Returns the slots that have a mount point on the host.
pub(super) fn mounted(config: &Config) -> BTreeSet<SlotId> {
    let entries = fs::read_dir(config.own_dirs());
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Makes the slot's mount point in the host's mount namespace. Returns `None` if no log files are kept.
pub(super) fn make(place: Place<'_>) -> Result<Option<PathBuf>, RootError> {
    if place.config.logs.keep == KeptLogs::None {
        return Ok(None);
    }
    let path = path(place.config, &place.id());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .or_refuse(Refusal::Mounts, || format!("create {}", path.display()))?;
    Ok(Some(path))
}

/// Mounts a filesystem that [`make`] put on the host at another place, where its programs can be executed.
pub(super) fn bind(from: &Path, to: &Path, flags: MsFlags) -> nix::Result<()> {
    let none = None::<&str>;
    mount(Some(from), to, none, MsFlags::MS_BIND, none)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
    mount(none, to, none, flags, none)
}

/// Log files of a runner that ended, opened.
pub(super) struct EndedLogs {
    name: BundleName,
    head: String,
    files: Vec<(String, File)>,
    limits: Limits,
}

/// Opens the log files of a runner that ended, if they are kept and there are any.
///
/// This needs all privileges of root: the files belong to the container's users.
pub(super) fn open(
    config: &Config,
    id: &SlotId,
    end: &EndRecord,
) -> Result<Option<EndedLogs>, RootError> {
    if !is_kept(config.logs.keep, end) {
        return Ok(None);
    }
    let path = path(config, id);
    let files =
        files::open(&path).or_refuse(Refusal::Leftovers, || format!("read {}", path.display()))?;
    if files.is_empty() {
        return Ok(None);
    }
    let limits = limits(config).or_refuse(Refusal::Leftovers, || {
        format!("read the free space of {LOG_BUNDLES_DIR} (systemd-tmpfiles --create makes it)")
    })?;
    let ended_unix_ms = clock::unix_ms();
    Ok(Some(EndedLogs {
        name: BundleName {
            ended_unix_ms,
            slot: id.clone(),
            invocation: end.invocation.clone(),
        },
        head: text::head(id, end, ended_unix_ms),
        files,
        limits,
    }))
}

impl EndedLogs {
    /// Writes the bundle. It needs no capability, and no file but those of the bundles' directory.
    pub(super) fn write(self) -> Result<(), RootError> {
        let dir = Path::new(LOG_BUNDLES_DIR);
        let write = || -> io::Result<bool> {
            let redactor = redact::Redactor::new(std::iter::empty()).map_err(io::Error::other)?;
            let text = text::of_files(&self.head, self.files, &redactor);
            log_bundles::write(dir, &self.name, &text, &self.limits)
        };
        write().map(drop).or_refuse(Refusal::Leftovers, || {
            format!(
                "write the log files of {} to {LOG_BUNDLES_DIR}",
                self.name.slot
            )
        })
    }
}

/// Returns true if the log files of a runner with this end are kept.
///
/// Root does not know verdicts, which the daemon gives later. An end counts as a failure unless its job succeeded or
/// was cancelled or skipped, or the runner was ended on request while it waited for a job.
fn is_kept(keep: KeptLogs, end: &EndRecord) -> bool {
    match keep {
        KeptLogs::All => true,
        KeptLogs::None => false,
        KeptLogs::Failed => match &end.exit {
            Exit::Status(status) if let Some(result) = JobResult::of_status(*status) => {
                match result {
                    JobResult::Failed | JobResult::Abandoned | JobResult::Interrupted => true,
                    JobResult::Succeeded | JobResult::Cancelled | JobResult::Unknown => false,
                }
            }
            Exit::Status(_) | Exit::Signal(_) | Exit::Unknown => !is_plain_end(end),
        },
    }
}

/// Returns true if the runner waited for a job and was ended on request.
///
/// The daemon ends a runner without a job by SIGKILL.
fn is_plain_end(end: &EndRecord) -> bool {
    let is_killed = matches!(&end.exit, Exit::Signal(signal) if signal == "KILL");
    let result = end.service_result.as_str();
    (end.stop_requested || is_killed)
        // Others are those of a stop that took too long, of lack of memory, and of crashes.
        && matches!(result, "success" | "exit-code" | "signal")
        && end.oom_kills == 0
        && (end.says_that_it_listens() || says_that_it_is_deleted(end))
}

/// Returns true if the last line of the runner is that of a listener whose registration GitHub has deleted.
///
/// The daemon deletes the registration of an idle runner before it ends the container, and the listener may see it.
fn says_that_it_is_deleted(end: &EndRecord) -> bool {
    let line = end.last_line.as_deref().unwrap_or_default();
    line.starts_with("The runner no longer exists on the server")
}

fn limits(config: &Config) -> io::Result<Limits> {
    let disk = statvfs(LOG_BUNDLES_DIR)?;
    let whole = disk.f_blocks.saturating_mul(disk.f_frsize);
    let reserve = config.reserve.disk.map(|ByteSize(bytes)| bytes);
    let reserve = reserve.unwrap_or_else(|| (whole / 20).min(MAX_FLOOR));
    Ok(Limits {
        space: config.logs.space.0,
        age: config.logs.age,
        free: disk.f_bavail.saturating_mul(disk.f_frsize),
        // At the reserve itself, admission would close.
        floor: reserve.saturating_mul(2),
    })
}

#[cfg(test)]
mod tests;
