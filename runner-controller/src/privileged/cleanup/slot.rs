//! What a slot leaves on the host, and its removal.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::config::Place;
use crate::pool::SlotId;
use crate::privileged::error::{OrRefuse, Refusal, RootError};
use crate::privileged::{gc_root, link};

/// nspawn's directories on the host for a machine. It refuses to start while the first is mounted.
const NSPAWN_DIRS: [&str; 2] = [
    "/run/systemd/nspawn/unix-export",
    "/run/systemd/nspawn/propagate",
];

/// Removes what one slot left outside its own mount namespace.
pub(crate) fn remove_all(id: &SlotId) -> Vec<RootError> {
    let mut failed = remove_mount_points(id);
    failed.extend(remove(id));
    failed
}

/// The part of it that takes the whole of root: to unmount, and to look into directories that their
/// owner may not enter either.
pub(crate) fn remove_mount_points(id: &SlotId) -> Vec<RootError> {
    let removed = nspawn_dirs(id)
        .map(|dir| remove_mount_point(&dir).or_refuse(Refusal::Leftovers, || removing(&dir)));
    removed.into_iter().filter_map(Result::err).collect()
}

/// And the rest.
pub(crate) fn remove(id: &SlotId) -> Vec<RootError> {
    let mut failed = Vec::new();
    // The kernel takes a link away with the container's namespace, but in its own time, and a new
    // life with the same link name would fail until then.
    let veth = Place::veth_of(id);
    let removed = link::remove(&veth).or_refuse(Refusal::Leftovers, || removing(Path::new(&veth)));
    failed.extend(removed.err());
    failed.extend(let_go(id).err());
    failed
}

pub(crate) fn let_go(id: &SlotId) -> Result<(), RootError> {
    gc_root::release(id).or_refuse(Refusal::Leftovers, || removing(&gc_root::path(id)))
}

/// The slot's directories of nspawn's.
pub(crate) fn nspawn_dirs(id: &SlotId) -> [PathBuf; 2] {
    NSPAWN_DIRS.map(|parent| Path::new(parent).join(id.to_string()))
}

pub(crate) fn removing(path: &Path) -> String {
    format!("remove {}", path.display())
}

fn remove_mount_point(dir: &Path) -> io::Result<()> {
    match umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // Not there, or not mounted: the usual case.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
        Err(why) => return Err(why.into()),
    }
    absent_is_fine(fs::remove_dir(dir))
}

pub(crate) fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
