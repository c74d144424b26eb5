//! The removal of what one slot left on the host. The slot's name determines every path.

use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::fstat;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use super::groups;
use super::tree::{self, Files};
use crate::config::{Config, Place};
use crate::pool::SlotId;
use crate::privileged::error::{OrRefuse, Refusal, RootError};
use crate::privileged::{gc_root, link, own_dir, pinned, trust};

/// Directory in which nspawn has directories for each machine.
const NSPAWN_DIR: &str = "/run/systemd/nspawn";

/// Removes everything that a slot left outside its mount namespace. Its unit must not run.
pub(crate) fn remove_all(config: &Config, id: &SlotId, deadline: Instant) -> Vec<RootError> {
    let mut failures = remove_around(config, id);
    failures.extend(groups::remove(id, deadline).err());
    failures.extend(remove_rules(id).err());
    failures
}

/// Removes nspawn's directories and the mount of the runner's own directory.
///
/// This needs all privileges of root: to unmount, and to enter directories without any permission.
pub(crate) fn remove_mount_points(config: &Config, id: &SlotId) -> Vec<RootError> {
    let own = own_dir::path(config, id);
    let removed = nspawn_dirs(id)
        .into_iter()
        .chain([own])
        .map(|dir| remove_mount_point(&dir).or_refuse(Refusal::Leftovers, || removing(&dir)));
    removed.filter_map(Result::err).collect()
}

/// Removes everything that a slot left outside its mount namespace and its unit's control group.
pub(crate) fn remove_around(config: &Config, id: &SlotId) -> Vec<RootError> {
    let mut failures = remove_mount_points(config, id);
    failures.extend(remove(id));
    failures
}

/// Removes the link and the garbage collector root. `CAP_NET_ADMIN` is enough.
pub(crate) fn remove(id: &SlotId) -> Vec<RootError> {
    let mut failures = Vec::new();
    // The kernel removes a link some time after the container's namespace ends. Until then a new
    // container with the same link name would fail.
    let veth = Place::veth_of(id);
    let removed = link::remove(&veth).or_refuse(Refusal::Leftovers, || removing(Path::new(&veth)));
    failures.extend(removed.err());
    failures.extend(remove_gc_root(id).err());
    failures
}

/// Removes the rules of a unit that has ended.
pub(crate) fn remove_rules(id: &SlotId) -> Result<(), RootError> {
    pinned::release(id).or_refuse(Refusal::Leftovers, || removing(&pinned::path(id)))
}

/// Removes the slot's garbage collector root.
pub(crate) fn remove_gc_root(id: &SlotId) -> Result<(), RootError> {
    gc_root::release(id).or_refuse(Refusal::Leftovers, || removing(&gc_root::path(id)))
}

/// Returns nspawn's directories for the slot, inner ones first. nspawn refuses to start while the first one is
/// mounted. In systemd 262, each machine has a directory, and that one is in it.
pub(crate) fn nspawn_dirs(id: &SlotId) -> [PathBuf; 4] {
    let id = id.to_string();
    [
        format!("unix-export/{id}"),
        format!("propagate/{id}"),
        format!("{id}/unix-export"),
        id,
    ]
    .map(|dir| Path::new(NSPAWN_DIR).join(dir))
}

/// Removes a directory with its contents. Follows no symlink in it.
pub(crate) fn remove_dir(dir: &Path, deadline: Instant) -> Result<(), RootError> {
    let remove = || {
        let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let name = CString::new(name.as_bytes())?;
        tree::remove(
            &fs::File::open(parent)?.into(),
            &name,
            Files::Removable,
            deadline,
        )
    };
    absent_is_fine(remove()).or_refuse(Refusal::Leftovers, || removing(dir))
}

/// Removes the contents of a directory with only the rights of the directory's owner.
///
/// The owner may change the tree meanwhile. It gains nothing, because the kernel refuses what it
/// refuses the owner.
pub(crate) fn clear_as_owner(dir: &Path, deadline: Instant) -> Result<(), RootError> {
    let clear = || {
        let opened = trust::open_dir(dir)?;
        let owner = fstat(&opened)?;
        setfsgid(Gid::from_raw(owner.st_gid));
        setfsuid(Uid::from_raw(owner.st_uid));
        tree::clear(opened, Files::Removable, deadline)
    };
    // The two ids belong to a thread and end with it.
    let cleared = std::thread::scope(|scope| {
        let thread = scope.spawn(clear);
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    });
    absent_is_fine(cleared).or_refuse(Refusal::Leftovers, || {
        format!("remove the contents of {}", dir.display())
    })
}

fn removing(path: &Path) -> String {
    format!("remove {}", path.display())
}

/// Removes a directory and every mount on it. A version that does not know the mount may have left one below another.
fn remove_mount_point(dir: &Path) -> io::Result<()> {
    loop {
        match umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Usually the directory is absent or not mounted.
            Err(Errno::ENOENT | Errno::EINVAL) => return absent_is_fine(fs::remove_dir(dir)),
            Err(why) => return Err(why.into()),
        }
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
