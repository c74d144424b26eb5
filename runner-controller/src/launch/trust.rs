//! What root believes: its own configuration, its own unit, and nothing that others can swap.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{User, geteuid};

use super::error::OrRefuse;
use super::{DAEMON_USER, LaunchError, Refusal};
use crate::config::{self, Config};
use crate::pool::SlotId;
use crate::world::Invocation;

/// A configuration is a few kilobytes; more is a mistake.
const CONFIG_MAX: u64 = 1 << 20;

/// Group and others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In a sticky directory nobody replaces what is another's (the Nix store is one).
const STICKY: u32 = 0o1000;

/// Reads the configuration as root may: the file and every directory above it must be root's and
/// writable by nobody else, since whoever writes it chooses what root mounts.
pub fn read_config(path: &Path) -> Result<Config, LaunchError> {
    let refuse = || format!("read {}", path.display());
    // A symlink is fine (NixOS has one) as long as what it leads to is root's.
    let real = path.canonicalize().or_refuse(Refusal::Config, refuse)?;
    for directory in real.ancestors().skip(1) {
        let seen = directory.metadata().or_refuse(Refusal::Config, || {
            format!("look at {}", directory.display())
        })?;
        check_owner(
            directory,
            seen.uid(),
            seen.mode(),
            seen.mode() & STICKY != 0,
        )?;
    }
    let file = File::open(&real).or_refuse(Refusal::Config, refuse)?;
    let seen = file.metadata().or_refuse(Refusal::Config, refuse)?;
    check_owner(&real, seen.uid(), seen.mode(), false)?;
    let mut text = String::new();
    file.take(CONFIG_MAX)
        .read_to_string(&mut text)
        .or_refuse(Refusal::Config, refuse)?;
    config::parse(path, &text).or_refuse(Refusal::Config, || "check the configuration".into())
}

fn check_owner(path: &Path, uid: u32, mode: u32, sticky: bool) -> Result<(), LaunchError> {
    let wrong = if uid != 0 {
        format!("belongs to uid {uid}; let root own it")
    } else if mode & WRITABLE_BY_OTHERS != 0 && !sticky {
        format!(
            "has mode {:04o}; let nobody but root write it (chmod go-w)",
            mode & 0o7777
        )
    } else {
        return Ok(());
    };
    Err(LaunchError::plain(
        Refusal::Config,
        format!("{} {wrong}", path.display()),
    ))
}

/// Makes sure that systemd runs us as this slot's unit, and tells which start of it this is.
///
/// The launcher sweeps its slot before it builds. Run by hand, it would sweep one that is alive.
pub(super) fn own_unit(id: &SlotId) -> Result<Invocation, LaunchError> {
    let refuse = |wrong: String| Err(LaunchError::plain(Refusal::Caller, wrong));
    if !geteuid().is_root() {
        return refuse("it takes root; start the slot with systemctl instead".into());
    }
    let unit = id.unit();
    let cgroup = own_cgroup()?;
    if !cgroup.split('/').any(|part| part == unit) {
        return refuse(format!(
            "not part of {unit}; start it with: systemctl start {unit}"
        ));
    }
    let given = std::env::var("INVOCATION_ID").unwrap_or_default();
    match Invocation::parse(&given) {
        Some(invocation) => Ok(invocation),
        None => refuse(format!(
            "$INVOCATION_ID is {given:?}, which is not systemd's"
        )),
    }
}

/// Our place in the unified hierarchy.
pub(super) fn own_cgroup() -> Result<String, LaunchError> {
    let text = std::fs::read_to_string("/proc/self/cgroup")
        .or_refuse(Refusal::Caller, || "read /proc/self/cgroup".into())?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
        .ok_or_else(|| {
            LaunchError::plain(
                Refusal::Caller,
                "the host has no unified cgroup hierarchy".into(),
            )
        })
}

/// Opens a directory of which no component may be a symlink.
pub(super) fn open_dir(path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(AT_FDCWD, path, how)
}

/// Opens the slot's socket directory, which must be the daemon's.
///
/// What is opened is what gets bound: a path would be looked up again, and whoever could swap the
/// directory in between would choose what root binds into a container.
pub(super) fn open_sockets(path: &Path) -> Result<OwnedFd, LaunchError> {
    let dir = open_dir(path).or_refuse(Refusal::Sockets, || {
        format!(
            "open {}; systemd-tmpfiles --create makes it",
            path.display()
        )
    })?;
    let daemon = User::from_name(DAEMON_USER)
        .or_refuse(Refusal::Sockets, || format!("look up user {DAEMON_USER}"))?
        .ok_or_else(|| {
            LaunchError::plain(
                Refusal::Sockets,
                format!("there is no user {DAEMON_USER}; systemd-sysusers makes it"),
            )
        })?;
    let seen = fstat(&dir).or_refuse(Refusal::Sockets, || format!("look at {}", path.display()))?;
    let is_dir = SFlag::from_bits_truncate(seen.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    if !is_dir || seen.st_uid != daemon.uid.as_raw() {
        return Err(LaunchError::plain(
            Refusal::Sockets,
            format!(
                "{} belongs to uid {} and not to {DAEMON_USER}",
                path.display(),
                seen.st_uid
            ),
        ));
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_behind_a_symlink_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("real")).unwrap();
        std::os::unix::fs::symlink("real", real.join("link")).unwrap();
        std::fs::create_dir(real.join("real/below")).unwrap();
        assert!(open_dir(&real.join("real/below")).is_ok());
        assert!(open_dir(&real.join("link")).is_err());
        assert!(open_dir(&real.join("link/below")).is_err());
    }

    #[test]
    fn only_what_root_alone_writes_is_trusted() {
        let path = Path::new("/etc/x");
        assert!(check_owner(path, 0, 0o100_644, false).is_ok());
        assert!(check_owner(path, 0, 0o041_777, true).is_ok());
        for (uid, mode) in [(1000, 0o100_644), (0, 0o100_664), (0, 0o100_646)] {
            let error = check_owner(path, uid, mode, false).unwrap_err();
            assert_eq!(error.refusal, Refusal::Config);
        }
    }

    #[test]
    fn a_launcher_started_by_hand_refuses() {
        let error = own_unit(&"ci-1".parse().unwrap()).unwrap_err();
        assert_eq!(error.refusal, Refusal::Caller);
    }
}
