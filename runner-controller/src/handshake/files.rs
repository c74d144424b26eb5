//! A slot's socket and FIFO as files: created, checked, emptied.
//!
//! The directory belongs to the daemon, and its root-owned 0750 parent hides it from other users. So the
//! modes here let in the users of the container alone.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use futures_util::FutureExt as _;
use nix::sys::socket::{SockType, UnixAddr, getsockname, getsockopt, sockopt};
use nix::sys::stat::Mode;
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};

use super::marker::Inode;

/// Mode of the socket. Connecting needs write permission; the peer's uid decides who is accepted.
const SOCKET_MODE: u32 = 0o666;
/// Mode of the FIFO. The hook runs as the job's user and only writes.
const FIFO_MODE: u32 = 0o622;

/// Maximum number of bytes to drain. A pipe's buffer has at most 1 MiB (`/proc/sys/fs/pipe-max-size`).
const MAX_DRAIN_BYTES: usize = 2 * 1024 * 1024;
/// Maximum number of queued connections to drop, more than any backlog holds.
const MAX_QUEUED: usize = 8192;

pub(super) fn socket(dir: &Path) -> PathBuf {
    dir.join("jit.sock")
}

pub(super) fn fifo(dir: &Path) -> PathBuf {
    dir.join("started")
}

/// Returns the identity of the socket at `path`, if there is one.
pub(super) fn socket_inode(path: &Path) -> Option<Inode> {
    let metadata = fs::symlink_metadata(path).ok()?;
    metadata.file_type().is_socket().then(|| inode(&metadata))
}

fn inode(metadata: &fs::Metadata) -> Inode {
    Inode {
        device: metadata.dev(),
        number: metadata.ino(),
    }
}

/// Listens at `path` and replaces any file there.
pub(super) fn bind(path: &Path) -> io::Result<(UnixListener, Inode)> {
    remove(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    let inode = socket_inode(path).ok_or(io::ErrorKind::NotFound)?;
    Ok((listener, inode))
}

/// Creates a FIFO at `path`, replaces any file there, and opens it.
pub(super) fn make_fifo(path: &Path) -> io::Result<pipe::Receiver> {
    remove(path)?;
    nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o600))?;
    // mkfifo subtracts the umask from its mode.
    fs::set_permissions(path, Permissions::from_mode(FIFO_MODE))?;
    open_fifo(path)
}

/// Opens the FIFO at `path` for both directions. Its own writer keeps reads from ending, and its own
/// reader keeps a hook from blocking in `open`.
pub(super) fn open_fifo(path: &Path) -> io::Result<pipe::Receiver> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW)
        .open(path)?;
    receiver(file.into())
}

/// Returns a FIFO as tokio reads it. Fails if the descriptor is not a FIFO.
pub(super) fn receiver(fd: OwnedFd) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(fd)
}

/// Returns true if the open FIFO is the file at `path`.
pub(super) fn is_at(fifo: impl AsFd, path: &Path) -> bool {
    let at = |path| -> io::Result<Inode> { Ok(inode(&fs::symlink_metadata(path)?)) };
    let open = || -> io::Result<Inode> {
        let file = File::from(fifo.as_fd().try_clone_to_owned()?);
        Ok(inode(&file.metadata()?))
    };
    matches!((open(), at(path)), (Ok(open), Ok(at)) if open == at)
}

/// Empties the FIFO. Returns false if it does not get empty.
pub(super) fn drain(fifo: &pipe::Receiver) -> bool {
    let mut buffer = vec![0; 64 * 1024];
    let mut drained = 0;
    while drained < MAX_DRAIN_BYTES {
        match nix::unistd::read(fifo, &mut buffer) {
            Ok(length) if length > 0 => drained += length,
            Err(nix::Error::EAGAIN) => return true,
            Ok(_) | Err(_) => return false,
        }
    }
    false
}

/// Closes all queued connections.
pub(super) fn drop_queued(listener: &UnixListener) -> io::Result<()> {
    for _ in 0..MAX_QUEUED {
        match listener.accept().now_or_never() {
            None => return Ok(()),
            Some(accepted) => drop(accepted?),
        }
    }
    Ok(())
}

/// Returns a listener as tokio uses it. [`is_listener_at`] checks the descriptor.
pub(super) fn listener(fd: OwnedFd) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(fd);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Returns a connection as tokio uses it. [`is_connection_of`] checks the descriptor.
pub(super) fn stream(fd: OwnedFd) -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Returns true if the descriptor is a listening stream socket that was bound to `path`.
pub(super) fn is_listener_at(fd: &OwnedFd, path: &Path) -> bool {
    let listens = getsockopt(fd, sockopt::SockType) == Ok(SockType::Stream)
        && getsockopt(fd, sockopt::AcceptConn) == Ok(true);
    let bound = getsockname::<UnixAddr>(fd.as_raw_fd());
    listens && bound.is_ok_and(|address| address.path() == Some(path))
}

/// Returns true if the descriptor is a stream connection whose peer has this uid.
pub(super) fn is_connection_of(fd: &OwnedFd, uid: u32) -> bool {
    getsockopt(fd, sockopt::SockType) == Ok(SockType::Stream)
        && getsockopt(fd, sockopt::AcceptConn) == Ok(false)
        && getsockopt(fd, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == uid)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
