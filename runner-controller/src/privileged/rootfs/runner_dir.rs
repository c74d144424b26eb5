//! Directories of the container that are not part of its overlay.

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

/// The runner's own directory, when it must be memory and the layer is disk: `.runner`, credentials
/// and the `_diag` logs take a few megabytes. Jobs work elsewhere.
const RUNNER_ROOT_SIZE: ByteSize = ByteSize(256 << 20);

/// The runner's own directory as memory over what the image has there: the listener writes its
/// decoded one-use config into it, and a secret never touches a disk.
pub(super) fn runner_overlay(
    stage: &Stage,
    image: &OwnedFd,
    path: &Path,
) -> Result<PathBuf, RootError> {
    let within = path.strip_prefix("/").unwrap_or(path);
    let refuse = || {
        format!(
            "find {} in the image; runner-controller prepare-image makes it",
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
        // An overlay's root is its upper directory as far as owner and mode go.
        .and_then(|()| chown(&upper, Some(seen.st_uid), Some(seen.st_gid)))
        .and_then(|()| {
            fs::set_permissions(&upper, fs::Permissions::from_mode(seen.st_mode & 0o7777))
        });
    filled.or_refuse(Refusal::Layer, || "make the runner's own layer".into())?;
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
    .or_refuse(Refusal::Mounts, || "mount the runner's own overlay".into())?;
    Ok(root)
}

/// The same where the image has nothing below: root's, for the guest to hand to its runner.
pub(super) fn runner_tmpfs(stage: &Stage, uid: u32) -> Result<PathBuf, RootError> {
    let root = stage.make("runner")?;
    mount_tmpfs(&root, RUNNER_ROOT_SIZE)?;
    chown(&root, Some(uid), Some(uid))
        .or_refuse(Refusal::Layer, || "make the runner's own layer".into())?;
    Ok(root)
}

/// A directory of the layer itself, so that what docker stores counts into the layer's hard size.
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
            "make docker's storage in the layer".into()
        })?;
    Ok(Some(storage))
}
