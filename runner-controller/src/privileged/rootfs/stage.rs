//! The mount namespace of a launcher, and the directory below which it mounts everything.

use std::fs;
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

/// Makes sure that the host sees no mount of ours, and that they all go with the unit's last process.
pub(super) fn private_namespace() -> Result<(), RootError> {
    let refuse = || "get a mount namespace of its own".to_owned();
    unshare(CloneFlags::CLONE_NEWNS).or_refuse(Refusal::Mounts, refuse)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).or_refuse(Refusal::Mounts, refuse)
}

/// Directory below which everything is mounted.
pub(super) struct Stage {
    dir: PathBuf,
}

impl Stage {
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
                "mount on {}; systemd-tmpfiles --create makes it",
                dir.display()
            )
        })?;
        Ok(Self { dir })
    }

    /// A new empty directory.
    pub(super) fn make(&self, name: &str) -> Result<PathBuf, RootError> {
        let path = self.dir.join(name);
        fs::create_dir(&path)
            .or_refuse(Refusal::Mounts, || format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Binds an opened directory: what was checked, whatever its path leads to by now.
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

/// A path that leads to an open file, in this process.
pub(super) fn handle(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens something in a tree as the container would, whose root the tree will be.
pub(super) fn open_in(tree: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(tree, path, how)
}

/// Opens what [`map_ids`] made: it is on our own stage, and belongs to the container's root by now.
pub(super) fn open_mapped(path: &Path) -> Result<OwnedFd, RootError> {
    trust::open_dir(path).or_refuse(Refusal::Mounts, || format!("open {}", path.display()))
}

/// Binds a tree read-only and with the slot's ids: what is root's in it is the container's root's.
pub(super) fn map_ids(place: Place<'_>, plain: &Path, mapped: &Path) -> Result<(), RootError> {
    // Only root of the initial user namespace may map ids, and it takes a process in a second one to
    // describe the map; mount (util-linux 2.39 and later) does that dance. An unknown X- option is
    // ignored by older ones, so the result is looked at.
    let (uid, ids) = (place.uid_first(), Place::UIDS);
    tool::run(
        Refusal::Mounts,
        Command::new("mount")
            .arg("--bind")
            .arg("-o")
            .arg(format!("ro,nodev,X-mount.idmap=b:0:{uid}:{ids}"))
            .args([plain, mapped]),
    )
}

pub(super) fn unmount(path: &Path) -> Result<(), RootError> {
    umount2(path, MntFlags::MNT_DETACH)
        .or_refuse(Refusal::Mounts, || format!("unmount {}", path.display()))
}

pub(super) fn mount_overlay(
    image: &OwnedFd,
    layer: &Path,
    root: &Path,
    kind: &Layer,
) -> Result<(), RootError> {
    // Nobody reads the layer after a crash, so an fsync in a job has nothing to make durable.
    let volatile = match kind {
        Layer::Tmpfs { .. } => "",
        Layer::Disk { .. } => ",volatile",
    };
    let layer = layer.display();
    let options = format!(
        "lowerdir={},upperdir={layer}/upper,workdir={layer}/work{volatile}",
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
