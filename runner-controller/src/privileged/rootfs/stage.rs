//! The mount namespace of a launcher, and the directory below which it mounts everything.
//!
//! All launchers use the same directory, each with a tmpfs in its mount namespace. So a slot cannot
//! see the mounts of another.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::layer::NO_DEVICES;
use crate::config::{Layer, Place};
use crate::privileged::error::{OrRefuse, Refusal, RootError};
use crate::privileged::{tool, trust};

/// Enters a new mount namespace.
///
/// The host does not see its mounts, and the kernel removes them with the unit's last process.
pub(super) fn private_namespace() -> Result<(), RootError> {
    let refuse = || "enter a new mount namespace".to_owned();
    unshare(CloneFlags::CLONE_NEWNS).or_refuse(Refusal::Mounts, refuse)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).or_refuse(Refusal::Mounts, refuse)
}

/// Directory below which a launcher mounts.
pub(super) struct Stage {
    dir: PathBuf,
}

impl Stage {
    /// Mounts a small tmpfs on the directory.
    pub(super) fn mount(dir: PathBuf) -> Result<Self, RootError> {
        mount(
            Some("runner-stage"),
            &dir,
            Some("tmpfs"),
            NO_DEVICES,
            Some("size=64k,nr_inodes=64,mode=0700"),
        )
        .or_refuse(Refusal::Mounts, || {
            format!(
                "mount a tmpfs on {} (systemd-tmpfiles --create makes the directory)",
                dir.display()
            )
        })?;
        Ok(Self { dir })
    }

    /// Creates an empty directory.
    pub(super) fn make(&self, name: &str) -> Result<PathBuf, RootError> {
        let path = self.dir.join(name);
        fs::create_dir(&path)
            .or_refuse(Refusal::Mounts, || format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Creates an empty file, on which a file is bound.
    pub(super) fn make_file(&self, name: &str) -> Result<PathBuf, RootError> {
        let path = self.dir.join(name);
        File::create_new(&path)
            .map(drop)
            .or_refuse(Refusal::Mounts, || format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Binds an opened directory, which has been checked. Its path may lead elsewhere by now.
    pub(super) fn bind(
        &self,
        name: &str,
        dir: &OwnedFd,
        refusal: Refusal,
    ) -> Result<PathBuf, RootError> {
        let target = self.make(name)?;
        let source = handle(dir);
        let flags = MsFlags::MS_BIND;
        mount(
            Some(source.as_str()),
            &target,
            None::<&str>,
            flags,
            None::<&str>,
        )
        .or_refuse(refusal, || format!("bind {}", target.display()))?;
        Ok(target)
    }
}

/// Returns a path to an open file, valid in this process.
pub(super) fn handle(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens a path in a tree as the container will, with the tree as its root.
pub(super) fn open_in(tree: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(tree, path, how)
}

/// Opens a directory that [`map_ids`] made, which belongs to root in the container.
pub(super) fn open_mapped(path: &Path) -> Result<OwnedFd, RootError> {
    trust::open_dir(path).or_refuse(Refusal::Mounts, || format!("open {}", path.display()))
}

/// Binds a tree read-only and maps its ids to the slot's. Root's files belong to root in the container.
pub(super) fn map_ids(place: Place<'_>, plain: &Path, mapped: &Path) -> Result<(), RootError> {
    let (uid, ids) = (place.uid_first(), Place::UIDS);
    let map = format!("b:0:{uid}:{ids}");
    bind_mapped(Refusal::Mounts, "ro,nodev", &map, plain, mapped)
}

/// Binds a tree with an id map, as pairs of ids of the file system and of the mount.
pub(super) fn bind_mapped(
    refusal: Refusal,
    flags: &str,
    map: &str,
    plain: &Path,
    mapped: &Path,
) -> Result<(), RootError> {
    // The kernel takes an id map from a process in a second user namespace, and only from root of the
    // initial one. mount does both (util-linux 2.39 and later). Older versions ignore an unknown X-
    // option, so the callers check the owner of the result.
    tool::run(
        refusal,
        Command::new("mount")
            .arg("--bind")
            .arg("-o")
            .arg(format!("{flags},X-mount.idmap={map}"))
            .args([plain, mapped]),
    )
}

/// Unmounts a directory.
pub(super) fn unmount(path: &Path) -> Result<(), RootError> {
    umount2(path, MntFlags::MNT_DETACH)
        .or_refuse(Refusal::Mounts, || format!("unmount {}", path.display()))
}

/// Mounts a writable layer over a read-only image.
pub(super) fn mount_overlay(
    image: &OwnedFd,
    layer: &Path,
    root: &Path,
    kind: &Layer,
) -> Result<(), RootError> {
    // The layer is never read after a crash, so an fsync in a job need not write to disk.
    let volatile = match kind {
        Layer::Tmpfs { .. } => "",
        Layer::Disk { .. } => ",volatile",
    };
    let layer = layer.display();
    // Without redirect_dir, a rename of a directory of the image fails with EXDEV, and toolchains that update
    // themselves do that. Only the host's root can write the extended attribute that it uses.
    let options = format!(
        "lowerdir={},upperdir={layer}/upper,workdir={layer}/work,redirect_dir=on{volatile}",
        handle(image)
    );
    let name = Some("runner-root");
    mount(
        name,
        root,
        Some("overlay"),
        NO_DEVICES,
        Some(options.as_str()),
    )
    .or_refuse(Refusal::Mounts, || "mount the container's overlay".into())
}
