//! The writable layer of a runner: a filesystem with a hard size limit, which disappears with its mount.
//!
//! Its files are never removed one by one. A tmpfs ends with its mount namespace. A layer on disk is a
//! file without a name, behind a loop device that clears itself. Both end with the mount, even if all
//! our processes are killed at once.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::ftruncate;

use crate::config::{ByteSize, Layer};
use crate::privileged::error::{OrRefuse, Refusal, RootError};
use crate::privileged::tool;
use crate::privileged::trust::open_dir;

/// Mount flag under which no device node works, set on every filesystem of a container.
///
/// A process in a user namespace cannot create a device node. This is the second defence.
pub(super) const NO_DEVICES: MsFlags = MsFlags::MS_NODEV;

/// Mounts the layer on an empty directory.
pub(super) fn mount_layer(layer: &Layer, layer_dir: &Path, target: &Path) -> Result<(), RootError> {
    match layer {
        Layer::Tmpfs { size } => mount_tmpfs(target, *size, NO_DEVICES),
        Layer::Disk { size } => mount_disk(layer_dir, *size, target),
    }
}

/// Mounts a tmpfs with a hard limit of bytes and of files.
pub(super) fn mount_tmpfs(target: &Path, size: ByteSize, flags: MsFlags) -> Result<(), RootError> {
    // By default the kernel allows half the host's pages as files, whatever the size limit. Each file
    // takes about a kilobyte that the size limit does not count.
    let files = (size.0 / 4096).max(1024);
    let options = format!("size={},nr_inodes={files},mode=0755", size.0);
    mount(
        Some("runner-layer"),
        target,
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )
    .or_refuse(Refusal::Layer, || {
        format!("mount a tmpfs of {size} on {}", target.display())
    })
}

fn mount_disk(layer_dir: &Path, size: ByteSize, target: &Path) -> Result<(), RootError> {
    let file = nameless_file(layer_dir, size)?;
    // The file has no name, so mke2fs and mount inherit the open descriptor.
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).or_refuse(Refusal::Layer, || {
        "pass the layer's file to mkfs.ext4".into()
    })?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-m", "0"])
        // A journal repairs a filesystem after a crash, and resize_inode lets it grow. This layer
        // needs neither.
        .args(["-O", "^has_journal,^resize_inode"])
        // A new file reads as zeros. So nothing must be discarded, and no table must be zeroed, now
        // (lazy_itable_init) or in the background after the mount (noinit_itable).
        .args(["-E", "nodiscard,lazy_itable_init=1"])
        .arg(&path);
    tool::run(Refusal::Layer, &mut mkfs)?;
    // With `-o loop` the loop device clears itself after its last use. `-c` is needed because the
    // target of the descriptor's link is not a path that can be resolved.
    let mut mount = Command::new("mount");
    mount
        .args(["-c", "-t", "ext4"])
        .args(["-o", "loop,nodev,noatime,nodiscard,noinit_itable,barrier=0"])
        .arg(&path)
        .arg(target);
    tool::run(Refusal::Layer, &mut mount)
}

/// Creates a sparse file without a name, which disappears when it is closed.
fn nameless_file(layer_dir: &Path, size: ByteSize) -> Result<File, RootError> {
    let refuse = || format!("create a layer of {size} in {}", layer_dir.display());
    let dir = open_layer_dir(layer_dir)?;
    let file = openat(
        &dir,
        ".",
        OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC,
        Mode::S_IRUSR | Mode::S_IWUSR,
    )
    .or_refuse(Refusal::Layer, refuse)?;
    let length = i64::try_from(size.0).or_refuse(Refusal::Layer, refuse)?;
    ftruncate(&file, length).or_refuse(Refusal::Layer, refuse)?;
    Ok(File::from(file))
}

fn open_layer_dir(path: &Path) -> Result<OwnedFd, RootError> {
    let dir = open_dir(path).or_refuse(Refusal::Layer, || {
        format!(
            "open {} (systemd-tmpfiles --create makes it)",
            path.display()
        )
    })?;
    let seen = fstat(&dir).or_refuse(Refusal::Layer, || {
        format!("read the owner and mode of {}", path.display())
    })?;
    if seen.st_uid != 0 || seen.st_mode & 0o077 != 0 {
        return Err(RootError::plain(
            Refusal::Layer,
            format!(
                "{} is accessible to other users than root; it holds the files of jobs (chown root, chmod 0700)",
                path.display()
            ),
        ));
    }
    Ok(dir)
}
