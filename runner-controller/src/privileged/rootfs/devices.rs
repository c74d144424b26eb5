//! Nodes of the devices that a pool opens to its jobs.
//!
//! Every user of the container may open them. The host's own nodes may be for a group that no container has.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::stage::Stage;
use crate::config::{Device, Place};
use crate::privileged::error::{OrRefuse, Refusal, RootError};

/// Makes the nodes of a pool's devices, and returns each with its path in the container.
pub(super) fn nodes(
    place: Place<'_>,
    stage: &Stage,
) -> Result<Vec<(PathBuf, &'static Path)>, RootError> {
    let mut nodes = Vec::new();
    if place.pool.devices.is_empty() {
        return Ok(nodes);
    }
    let dir = stage.make("devices")?;
    // The stage itself has nodev. systemd-nspawn binds each node alone, so no other place has one.
    mount(
        Some("runner-devices"),
        &dir,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some("size=4k,nr_inodes=8,mode=0700"),
    )
    .or_refuse(Refusal::Devices, || "mount a tmpfs for device nodes".into())?;
    let uid = place.uid_first();
    for device in &place.pool.devices {
        let number = makedev(Device::MAJOR, device.minor());
        let path = Path::new(device.path());
        let is_there = path
            .symlink_metadata()
            .is_ok_and(|seen| seen.file_type().is_char_device() && seen.rdev() == number);
        if !is_there {
            return Err(RootError::plain(
                Refusal::Devices,
                format!(
                    "{} is missing on this host; load the module {}, or remove it from devices",
                    path.display(),
                    device.module()
                ),
            ));
        }
        let node = dir.join(device.minor().to_string());
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mknod(&node, SFlag::S_IFCHR, mode, number).or_refuse(Refusal::Devices, || {
            format!("make a node of {}", path.display())
        })?;
        chown(&node, Some(uid), Some(uid))
            .and_then(|()| fs::set_permissions(&node, fs::Permissions::from_mode(0o666)))
            .or_refuse(Refusal::Devices, || {
                format!("open {} to the container's users", path.display())
            })?;
        nodes.push((node, path));
    }
    Ok(nodes)
}
