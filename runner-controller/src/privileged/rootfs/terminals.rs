//! The container's `/dev/pts`, with its part of the host's pseudo terminals.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::stage::Stage;
use crate::config::Place;
use crate::privileged::error::{OrRefuse, Refusal, RootError};

/// Group `tty` in every image, as systemd-nspawn and Debian have it.
const TTY: u32 = 5;

/// A devpts that is not mounted on a directory yet.
pub(super) struct Terminals(OwnedFd);

impl Terminals {
    /// Makes a devpts for a slot. The caller must still be in the host's mount namespace.
    ///
    /// The kernel lets a devpts use the reserve (`kernel.pty.reserve`) only if it was made in the first mount
    /// namespace of the machine (`parse_mount_options` in fs/devpts/inode.c). So a job with its own devpts cannot
    /// take these terminals. The filesystem belongs to the host's user namespace, and root in the container cannot
    /// raise its limit.
    pub(super) fn make(place: Place<'_>) -> Result<Self, RootError> {
        let make = || -> io::Result<OwnedFd> {
            let context = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
            let uid = place.uid_first();
            for (name, value) in [
                ("gid", uid + TTY),
                ("max", place.pool.limits.shared.terminals),
            ] {
                fsconfig_set_string(&context, name, value.to_string())?;
            }
            for (name, value) in [("mode", "620"), ("ptmxmode", "666")] {
                fsconfig_set_string(&context, name, value)?;
            }
            fsconfig_create(&context)?;
            let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
            let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
            chownat(&mount, "", user, group, AtFlags::EMPTY_PATH)?;
            chownat(&mount, "ptmx", user, group, AtFlags::empty())?;
            Ok(mount)
        };
        make()
            .map(Self)
            .or_refuse(Refusal::Mounts, || "make a devpts".into())
    }

    /// Mounts it below the stage.
    pub(super) fn mount(self, stage: &Stage) -> Result<PathBuf, RootError> {
        let dir = stage.make("terminals")?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&self.0, "", CWD, &dir, flags)
            .or_refuse(Refusal::Mounts, || format!("mount {}", dir.display()))?;
        Ok(dir)
    }
}
