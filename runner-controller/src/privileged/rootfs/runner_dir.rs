//! The runner's directory, which is not part of the container's overlay.
//!
//! The listener keeps the log of the job in `_diag` of its directory until it has sent it, and aborts if it
//! cannot write there. Therefore the directory has its own bytes and inodes, which no write to another
//! directory can take.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::fstat;

use super::layer::{NO_DEVICES, mount_tmpfs};
use super::setup_info;
use super::stage::{Stage, handle, open_in};
use crate::config::{ByteSize, Layer, Place};
use crate::privileged::error::{OrRefuse, Refusal, RootError};
use crate::privileged::own_dir;

/// Maximum size of the runner's directory. `.runner`, credentials and the `_diag` logs take a few
/// megabytes: the listener sends a log in pages of 8 MiB and removes each (`PagingLogger` in
/// actions/runner).
const MAX_OWN: ByteSize = ByteSize(256 << 20);
/// Minimum size, for the smallest layer.
const MIN_OWN: ByteSize = ByteSize(2 << 20);

/// Mount flags of the runner's directory on the host, where root reads it.
const NOTHING_RUNS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);

/// Sizes of the runner's directory and of the layer, which together have the configured size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Division {
    /// Size of the runner's directory, in memory.
    pub(super) own: ByteSize,
    /// The layer without it.
    pub(super) layer: Layer,
}

impl Division {
    /// Divides a layer. The runner's directory gets an eighth of it, within bounds. A layer on disk stays
    /// whole, because the runner's directory is in memory.
    pub(super) fn of(layer: &Layer) -> Self {
        match layer {
            Layer::Tmpfs { size } => {
                let own = (size.0 / 8).clamp(MIN_OWN.0, MAX_OWN.0);
                Self {
                    own: ByteSize(own),
                    layer: Layer::Tmpfs {
                        size: ByteSize(size.0.saturating_sub(own)),
                    },
                }
            }
            Layer::Disk { .. } => Self {
                own: MAX_OWN,
                layer: layer.clone(),
            },
        }
    }
}

/// The filesystem of the runner's directory, in memory.
pub(super) struct OwnDir {
    size: ByteSize,
    /// Mount point on the host, if the log files are kept.
    on_host: Option<PathBuf>,
}

impl OwnDir {
    /// Mounts the filesystem on the host, if the log files in it are kept. The caller must still be in the host's
    /// mount namespace.
    pub(super) fn make(place: Place<'_>, size: ByteSize) -> Result<Self, RootError> {
        let on_host = own_dir::make(place)?;
        if let Some(path) = &on_host {
            mount_tmpfs(path, size, NO_DEVICES | NOTHING_RUNS)?;
        }
        Ok(Self { size, on_host })
    }

    /// Mounts the filesystem on an empty directory of the container's mount namespace.
    fn mount(&self, target: &Path) -> Result<(), RootError> {
        match &self.on_host {
            None => mount_tmpfs(target, self.size, NO_DEVICES),
            Some(path) => own_dir::bind(path, target, NO_DEVICES)
                .or_refuse(Refusal::Mounts, || format!("bind {}", path.display())),
        }
    }
}

/// Mounts the runner's directory: an overlay in memory over the image's directory.
///
/// The listener writes its decoded JIT config into it, and a secret never touches a disk.
pub(super) fn runner_overlay(
    place: Place<'_>,
    stage: &Stage,
    image: &OwnedFd,
    path: &Path,
    own: &OwnDir,
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
    own.mount(&memory)?;
    let upper = memory.join("upper");
    let root = stage.make("runner")?;
    let filled = fs::create_dir(&upper)
        .and_then(|()| fs::create_dir(memory.join("work")))
        // The root of an overlay has the owner and mode of its upper directory.
        .and_then(|()| chown(&upper, Some(seen.st_uid), Some(seen.st_gid)))
        .and_then(|()| {
            fs::set_permissions(&upper, fs::Permissions::from_mode(seen.st_mode & 0o7777))
        })
        .and_then(|()| write_setup_info(place, &upper));
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
pub(super) fn runner_tmpfs(
    place: Place<'_>,
    stage: &Stage,
    own: &OwnDir,
) -> Result<PathBuf, RootError> {
    let root = stage.make("runner")?;
    own.mount(&root)?;
    let uid = place.uid_first();
    chown(&root, Some(uid), Some(uid))
        .and_then(|()| write_setup_info(place, &root))
        .or_refuse(Refusal::Layer, || {
            "create the runner's directory in memory".into()
        })?;
    Ok(root)
}

/// Writes the text about the host into a new directory. The file belongs to root in the container.
fn write_setup_info(place: Place<'_>, dir: &Path) -> io::Result<()> {
    let path = dir.join(setup_info::FILE);
    let uid = place.uid_first();
    fs::write(&path, setup_info::text(place))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444))?;
    chown(&path, Some(uid), Some(uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runners_directory_counts_in_the_size_of_a_layer_in_memory() {
        let mib = |count: u64| ByteSize(count << 20);
        for (whole, own) in [(16, 2), (96, 12), (512, 64), (2048, 256), (8192, 256)] {
            let division = Division::of(&Layer::Tmpfs { size: mib(whole) });
            assert_eq!(division.own, mib(own), "{whole} MiB");
            let rest = Layer::Tmpfs {
                size: mib(whole - own),
            };
            assert_eq!(division.layer, rest, "{whole} MiB");
        }
        let disk = Layer::Disk { size: mib(512) };
        assert_eq!(Division::of(&disk).layer, disk);
    }
}
