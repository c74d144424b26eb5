//! A runner's part of the kernel's shared tables: maxima of its user namespace.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use capctl::caps::Cap;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use super::error::{OrRefuse, Refusal, RootError};
use super::sandbox;
use crate::config::{SharedParts, UserTable};

/// Directory with the maxima of the reader's user namespace.
pub(crate) const SETTINGS: &str = "/proc/sys/user";
/// Timeout for the last thread to leave.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writes the maxima of a container's user namespace, and stays in that namespace: the last act of a
/// program.
///
/// The kernel counts for each user of the namespace, and lets only a process with `CAP_SYS_RESOURCE` in
/// it change a maximum. No process of the container has that capability. A process that enters a user
/// namespace has every capability in it, so this one gives up the others.
pub(crate) fn set(userns: &File, parts: &SharedParts) -> Result<(), RootError> {
    let refuse = || format!("set the maxima of the container in {SETTINGS}");
    enter(userns).or_refuse(Refusal::Network, refuse)?;
    sandbox::keep(&[Cap::SYS_RESOURCE])?;
    write_maxima(parts).or_refuse(Refusal::Network, refuse)
}

fn write_maxima(parts: &SharedParts) -> io::Result<()> {
    for table in UserTable::ALL {
        match fs::write(
            format!("{SETTINGS}/{}", table.file),
            table.per_user(parts).to_string(),
        ) {
            // A kernel without the table.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Enters a user namespace. Only a process without other threads can do that, and a thread that was joined
/// leaves its process a moment later.
fn enter(userns: &File) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match setns(userns, CloneFlags::CLONE_NEWUSER) {
            Err(Errno::EINVAL) if Instant::now() < end => std::thread::yield_now(),
            other => return Ok(other?),
        }
    }
}
