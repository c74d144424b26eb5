//! systemd's file descriptor store, for descriptors that must survive a restart of the daemon.
//!
//! The daemon's unit has `FileDescriptorStoreMax=` (four per slot) and
//! `FileDescriptorStorePreserve=yes`. Without systemd (no `NOTIFY_SOCKET`) no descriptor is stored, and
//! everything else works.
//!
//! The store drops a descriptor when its peer is gone (it polls for hang-up). For a waiting connection this
//! is right, because its container is dead. A peer that only stopped writing is not gone, and its connection
//! stays; systemd stops writing after it has connected for a credential.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use sd_notify::NotifyState;
use tokio::sync::oneshot;

/// Maximum number of orders that wait for systemd. A slot has a handful of them at a time. An order that
/// does not fit costs persistence, not a job.
const WAITING_ORDERS: usize = 4096;

/// Timeout of [`FdStore::flush`].
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes the descriptors that systemd passes to this process, with their names (`jit.ci-3`, …).
///
/// To be called once, before anything else opens a descriptor and before threads start. A descriptor that
/// cannot be taken is logged and left out. The list is empty if systemd did not start the process.
#[must_use]
pub(crate) fn take() -> Vec<(String, OwnedFd)> {
    let listed = match sd_notify::listen_fds_with_names() {
        Ok(listed) => listed,
        Err(error) => {
            tracing::warn!(%error, "cannot read the list of descriptors from systemd: {error}");
            return Vec::new();
        }
    };
    let mut taken = Vec::new();
    for (raw, name) in listed {
        match own(raw) {
            Ok(fd) => taken.push((name, fd)),
            Err(error) => {
                tracing::warn!(name, %error, "cannot take descriptor {name} from systemd: {error}");
            }
        }
    }
    taken
}

/// Returns an owned descriptor for a number, and closes the number.
///
/// `OwnedFd::from_raw_fd` is `unsafe`, which this crate forbids. Instead the number is sent over a socket
/// to this process, where it arrives as a new descriptor.
fn own(raw: RawFd) -> io::Result<OwnedFd> {
    let (here, there) = UnixStream::pair()?;
    let raws = [raw];
    let payload = [io::IoSlice::new(b"x")];
    sendmsg::<()>(
        here.as_raw_fd(),
        &payload,
        &[ControlMessage::ScmRights(&raws)],
        MsgFlags::empty(),
        None,
    )?;
    let mut byte = [0];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(
        &there,
        &mut [io::IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let owned = control.drain().find_map(|message| {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fds.next()
        } else {
            None
        }
    });
    nix::unistd::close(raw)?;
    owned.ok_or_else(|| io::Error::other("the descriptor did not arrive"))
}

enum Order {
    Put(String, OwnedFd),
    Remove(String),
    Flush(oneshot::Sender<()>),
}

/// Client of the store. A thread passes orders to systemd in order, because systemd may be busy and no
/// caller needs its answer.
#[derive(Debug, Clone)]
pub(super) struct FdStore(Option<SyncSender<Order>>);

impl FdStore {
    /// Returns a client. It ignores all orders if systemd did not pass a notify socket.
    pub(super) fn connect() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self(None);
        }
        let (orders, waiting) = sync_channel(WAITING_ORDERS);
        let spawned = std::thread::Builder::new()
            .name("fdstore".to_owned())
            .spawn(move || execute(&waiting));
        match spawned {
            Ok(_) => Self(Some(orders)),
            Err(error) => {
                tracing::error!(%error, "cannot start the thread of the descriptor store: {error}; a restart will end spares");
                Self(None)
            }
        }
    }

    /// Stores a copy of `fd` under `name`. Descriptors that have this name already stay.
    pub(super) fn put(&self, name: String, fd: impl AsFd) {
        if self.0.is_none() {
            return;
        }
        match fd.as_fd().try_clone_to_owned() {
            Ok(copy) => self.order(Order::Put(name, copy)),
            Err(error) => {
                tracing::warn!(name, %error, "cannot duplicate descriptor {name} for systemd's store: {error}");
            }
        }
    }

    /// Removes all descriptors with this name from the store.
    pub(super) fn remove(&self, name: String) {
        self.order(Order::Remove(name));
    }

    /// Waits until systemd has executed all orders so far, at most some seconds.
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.order(Order::Flush(done));
        // Without a thread the sender is dropped, which ends the wait.
        let _ = flushed.await;
    }

    fn order(&self, order: Order) {
        let Some(orders) = &self.0 else { return };
        match orders.try_send(order) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!(
                    "systemd does not take descriptors in time; a restart would end spares"
                );
            }
            Err(TrySendError::Disconnected(_)) => {
                tracing::error!("the thread of the descriptor store has ended");
            }
        }
    }
}

fn execute(orders: &Receiver<Order>) {
    for order in orders {
        let result = match order {
            Order::Put(name, fd) => sd_notify::notify_with_fds(
                &[NotifyState::FdStore, NotifyState::FdName(&name)],
                &[fd.as_fd()],
            ),
            Order::Remove(name) => {
                sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)])
            }
            Order::Flush(done) => {
                let result = barrier();
                let _ = done.send(());
                result
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "cannot reach systemd's descriptor store: {error}");
        }
    }
}

/// Waits until systemd has handled all messages so far: it closes the descriptor that it gets
/// (`sd_notify_barrier(3)`). systemd drops messages of a process that has ended.
fn barrier() -> io::Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    ours.set_read_timeout(Some(FLUSH_TIMEOUT))?;
    // systemd answers by closing its end.
    match ours.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("systemd answered a barrier with data")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::fd::IntoRawFd as _;

    #[test]
    fn a_number_becomes_an_owned_descriptor_and_is_closed() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let raw = theirs.into_raw_fd();
        let owned = own(raw).unwrap();
        assert_ne!(owned.as_raw_fd(), raw);
        let mut stream = UnixStream::from(owned);
        stream.write_all(b"hello").unwrap();
        drop(stream);
        let mut text = String::new();
        // The stream ends only if the first descriptor is closed as well.
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_number_without_a_descriptor_is_an_error() {
        assert!(own(987_654).is_err());
    }

    #[tokio::test]
    async fn without_systemd_the_store_ignores_orders() {
        let store = FdStore(None);
        let (one, _two) = UnixStream::pair().unwrap();
        store.put("x".into(), &one);
        store.remove("x".into());
        store.flush().await;
    }
}
