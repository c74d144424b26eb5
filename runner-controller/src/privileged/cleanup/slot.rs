//! The removal of what one slot left on the host. The slot's name determines every path.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::config::Place;
use crate::pool::SlotId;
use crate::privileged::error::{OrRefuse, Refusal, RootError};
use crate::privileged::{gc_root, link};

/// Directories in which nspawn has one for each machine. It refuses to start while the first is
/// mounted.
const NSPAWN_DIRS: [&str; 2] = [
    "/run/systemd/nspawn/unix-export",
    "/run/systemd/nspawn/propagate",
];

/// Removes everything that a slot left outside its mount namespace.
pub(crate) fn remove_all(id: &SlotId) -> Vec<RootError> {
    let mut failures = remove_mount_points(id);
    failures.extend(remove(id));
    failures
}

/// Removes nspawn's directories.
///
/// This needs all privileges of root: to unmount, and to enter directories without any permission.
pub(crate) fn remove_mount_points(id: &SlotId) -> Vec<RootError> {
    let removed = nspawn_dirs(id)
        .map(|dir| remove_mount_point(&dir).or_refuse(Refusal::Leftovers, || removing(&dir)));
    removed.into_iter().filter_map(Result::err).collect()
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

/// Removes the slot's garbage collector root.
pub(crate) fn remove_gc_root(id: &SlotId) -> Result<(), RootError> {
    gc_root::release(id).or_refuse(Refusal::Leftovers, || removing(&gc_root::path(id)))
}

/// Returns nspawn's directories for the slot.
pub(crate) fn nspawn_dirs(id: &SlotId) -> [PathBuf; 2] {
    NSPAWN_DIRS.map(|parent| Path::new(parent).join(id.to_string()))
}

/// Removes a directory with its contents. Follows no symlink in it.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), RootError> {
    absent_is_fine(fs::remove_dir_all(dir)).or_refuse(Refusal::Leftovers, || removing(dir))
}

fn removing(path: &Path) -> String {
    format!("remove {}", path.display())
}

fn remove_mount_point(dir: &Path) -> io::Result<()> {
    match umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // Usually the directory is absent or not mounted.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
        Err(why) => return Err(why.into()),
    }
    absent_is_fine(fs::remove_dir(dir))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
