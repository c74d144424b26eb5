//! A runner's part of the kernel's shared tables: maxima of its user namespace, and of its `/dev/pts`.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use capctl::caps::Cap;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use rustix::fs::CWD;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_string, fspick};

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

/// Limits the number of terminals on a container's `/dev/pts`.
///
/// systemd-nspawn mounts this filesystem before it makes the user namespace, so it belongs to the host, and root
/// in the container cannot change the limit. A change resets the other options, so they are given again.
pub(crate) fn limit_terminals(leader: u32, parts: &SharedParts) -> io::Result<()> {
    let mounts = fs::read_to_string(format!("/proc/{leader}/mountinfo"))?;
    let options = options_of_terminals(&mounts)
        .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "the container has no /dev/pts"))?;
    // At this time the container has run nothing but its image.
    let dir = format!("/proc/{leader}/root/dev/pts");
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_SYMLINK_NOFOLLOW;
    let terminals = fspick(CWD, dir, flags)?;
    for (name, value) in options {
        fsconfig_set_string(&terminals, name, value)?;
    }
    fsconfig_set_string(&terminals, "max", parts.terminals.to_string())?;
    Ok(fsconfig_reconfigure(&terminals)?)
}

/// Returns the options with a value of the devpts on `/dev/pts`, without its limit (`proc_pid_mountinfo(5)`).
fn options_of_terminals(mountinfo: &str) -> Option<Vec<(&str, &str)>> {
    let mut lines = mountinfo.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let at_pts = mount.split(' ').nth(4) == Some("/dev/pts");
        let mut fields = filesystem.split(' ');
        (at_pts && fields.next() == Some("devpts")).then(|| fields.nth(1))?
    });
    let options = lines.next_back()?;
    let named = options
        .split(',')
        .filter_map(|option| option.split_once('='));
    Some(named.filter(|(name, _)| *name != "max").collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_terminals_are_read_from_the_last_mount() {
        let mounts = "21 20 0:5 / /dev rw,nosuid shared:2 - tmpfs tmpfs rw,size=4m\n\
            22 21 0:6 / /dev/pts rw,nosuid,noexec - devpts devpts rw,gid=1,mode=600\n\
            23 21 0:7 / /dev/pts rw,nosuid,noexec - devpts devpts rw,gid=268435461,mode=620,ptmxmode=666,max=5\n";
        let wanted = [("gid", "268435461"), ("mode", "620"), ("ptmxmode", "666")];
        assert_eq!(options_of_terminals(mounts).unwrap(), wanted);
        assert_eq!(
            options_of_terminals("21 20 0:5 / /dev/pts rw - tmpfs tmpfs rw"),
            None
        );
        assert_eq!(options_of_terminals(""), None);
    }
}
