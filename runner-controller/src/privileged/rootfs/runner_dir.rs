//! The runner's directory and docker's storage, which are not part of the container's overlay.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::mount;
use nix::sys::stat::fstat;

use super::layer::{NO_DEVICES, mount_tmpfs};
use super::stage::{Stage, handle, open_in};
use crate::config::{ByteSize, Place};
use crate::privileged::error::{OrRefuse, Refusal, RootError};

/// Size of the runner's directory in memory, used with a layer on disk. `.runner`, credentials and the
/// `_diag` logs take a few megabytes. Jobs work in another directory.
const RUNNER_ROOT_SIZE: ByteSize = ByteSize(256 << 20);

/// Mounts the runner's directory: an overlay in memory over the image's directory.
///
/// The listener writes its decoded JIT config into it, and a secret never touches a disk.
pub(super) fn runner_overlay(
    stage: &Stage,
    image: &OwnedFd,
    path: &Path,
) -> Result<PathBuf, RootError> {
    let within = path.strip_prefix("/").unwrap_or(path);
    let refuse = || {
        format!(
            "find {} in the image (runner-controller prepare-image creates it)",
            path.display()
        )
    };
    let lower = open_in(image, within).or_refuse(Refusal::Image, refuse)?;
    let seen = fstat(&lower).or_refuse(Refusal::Image, refuse)?;
    let memory = stage.make("runner-layer")?;
    mount_tmpfs(&memory, RUNNER_ROOT_SIZE)?;
    let upper = memory.join("upper");
    let root = stage.make("runner")?;
    let filled = fs::create_dir(&upper)
        .and_then(|()| fs::create_dir(memory.join("work")))
        // The root of an overlay has the owner and mode of its upper directory.
        .and_then(|()| chown(&upper, Some(seen.st_uid), Some(seen.st_gid)))
        .and_then(|()| {
            fs::set_permissions(&upper, fs::Permissions::from_mode(seen.st_mode & 0o7777))
        });
    filled.or_refuse(Refusal::Layer, || {
        "create the runner's directory in memory".into()
    })?;
    let memory = memory.display();
    let options = format!(
        "lowerdir={},upperdir={memory}/upper,workdir={memory}/work",
        handle(&lower)
    );
    let name = Some("runner-own");
    mount(
        name,
        &root,
        Some("overlay"),
        NO_DEVICES,
        Some(options.as_str()),
    )
    .or_refuse(Refusal::Mounts, || {
        "mount the overlay of the runner's directory".into()
    })?;
    Ok(root)
}

/// Mounts the runner's directory as an empty tmpfs. The guest gives it to the runner's user.
pub(super) fn runner_tmpfs(stage: &Stage, uid: u32) -> Result<PathBuf, RootError> {
    let root = stage.make("runner")?;
    mount_tmpfs(&root, RUNNER_ROOT_SIZE)?;
    chown(&root, Some(uid), Some(uid)).or_refuse(Refusal::Layer, || {
        "create the runner's directory in memory".into()
    })?;
    Ok(root)
}

/// Creates docker's storage in the layer, so that the layer's size limits it.
pub(super) fn docker_storage(place: Place<'_>, layer: &Path) -> Result<Option<PathBuf>, RootError> {
    if !place.pool.docker {
        return Ok(None);
    }
    let storage = layer.join("docker");
    let uid = place.uid_first();
    fs::create_dir(&storage)
        .and_then(|()| fs::set_permissions(&storage, fs::Permissions::from_mode(0o710)))
        .and_then(|()| chown(&storage, Some(uid), Some(uid)))
        .or_refuse(Refusal::Layer, || {
            "create docker's storage in the layer".into()
        })?;
    Ok(Some(storage))
}
