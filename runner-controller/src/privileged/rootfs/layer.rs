//! What a life writes to: a filesystem of a hard size that is gone when its mount is.
//!
//! Nothing is ever removed file by file. A tmpfs goes with its mount namespace. A disk layer lies in
//! a file that has no name, behind a loop device that clears itself: both go with the mount too, even
//! if everything of ours is killed at once.

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

/// No device node works on any filesystem of a life. A user namespace cannot make one; this is for
/// the day somebody finds out how.
pub(super) const NO_DEVICES: MsFlags = MsFlags::MS_NODEV;

/// Mounts the layer on an empty directory.
pub(super) fn mount_layer(layer: &Layer, layer_dir: &Path, target: &Path) -> Result<(), RootError> {
    match layer {
        Layer::Tmpfs { size } => mount_tmpfs(target, *size),
        Layer::Disk { size } => mount_disk(layer_dir, *size, target),
    }
}

/// Mounts a tmpfs of a hard size, in bytes and in files.
pub(super) fn mount_tmpfs(target: &Path, size: ByteSize) -> Result<(), RootError> {
    // The kernel's default for files is half the host's pages whatever the size, and each costs
    // about a kilobyte that no size limit sees.
    let files = (size.0 / 4096).max(1024);
    let options = format!("size={},nr_inodes={files},mode=0755", size.0);
    mount(
        Some("runner-layer"),
        target,
        Some("tmpfs"),
        NO_DEVICES,
        Some(options.as_str()),
    )
    .or_refuse(Refusal::Layer, || {
        format!("mount a tmpfs of {size} on {}", target.display())
    })
}

fn mount_disk(layer_dir: &Path, size: ByteSize, target: &Path) -> Result<(), RootError> {
    let file = nameless_file(layer_dir, size)?;
    // mke2fs and mount reach the file as their own open descriptor, since it has no name.
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))
        .or_refuse(Refusal::Layer, || "pass the layer's file on".into())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-m", "0"])
        // A journal makes a filesystem whole after a crash, and room in the descriptors lets it
        // grow; this one does neither.
        .args(["-O", "^has_journal,^resize_inode"])
        // The file is new and reads as zeros: nothing to discard, and no tables to write zeros to,
        // now (lazy) or in the background once it is mounted (noinit_itable).
        .args(["-E", "nodiscard,lazy_itable_init=1"])
        .arg(&path);
    tool::run(Refusal::Layer, &mut mkfs)?;
    // `-o loop` makes the loop device clear itself when its last user is gone. `-c`, because what
    // the descriptor's link says is no path that could be looked up.
    let mut mount = Command::new("mount");
    mount
        .args(["-c", "-t", "ext4"])
        .args(["-o", "loop,nodev,noatime,nodiscard,noinit_itable,barrier=0"])
        .arg(&path)
        .arg(target);
    tool::run(Refusal::Layer, &mut mount)
}

/// A sparse file that is gone when nobody has it open.
fn nameless_file(layer_dir: &Path, size: ByteSize) -> Result<File, RootError> {
    let refuse = || format!("make a layer of {size} in {}", layer_dir.display());
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
            "open {}; systemd-tmpfiles --create makes it",
            path.display()
        )
    })?;
    let seen = fstat(&dir).or_refuse(Refusal::Layer, || format!("look at {}", path.display()))?;
    if seen.st_uid != 0 || seen.st_mode & 0o077 != 0 {
        return Err(RootError::plain(
            Refusal::Layer,
            format!(
                "{} is not root's alone; it holds what jobs write (chown root, chmod 0700)",
                path.display()
            ),
        ));
    }
    Ok(dir)
}
