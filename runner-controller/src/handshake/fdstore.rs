//! systemd's file descriptor store: what a restart of the daemon must not close.
//!
//! The daemon's unit has `FileDescriptorStoreMax=` (four per slot) and
//! `FileDescriptorStorePreserve=yes`. Without systemd (no `NOTIFY_SOCKET`) nothing is kept and
//! everything else works.
//!
//! The store drops a descriptor by itself when its peer is gone (it polls for hang-up). That is
//! what we want of a waiting connection: its container is dead. A peer that only stopped writing,
//! as systemd does after it connected for a credential, is not gone and stays.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use sd_notify::NotifyState;
use tokio::sync::oneshot;

/// Orders that may wait for systemd. A slot has at most a handful on the way at a time, and an
/// order that does not fit costs persistence, not a job.
const WAITING_ORDERS: usize = 4096;

/// How long [`Keeper::flush`] waits for systemd.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes what systemd hands this process at its start: stored descriptors and activated sockets,
/// with their names (`jit.ci-3`, `api`, …).
///
/// To be called once, before anything else opens a descriptor and before threads start. A
/// descriptor that cannot be taken is logged and left out. Not started by systemd: empty.
#[must_use]
pub fn take() -> Vec<(String, OwnedFd)> {
    let listed = match sd_notify::listen_fds_with_names() {
        Ok(listed) => listed,
        Err(error) => {
            tracing::warn!(%error, "cannot read the descriptors that systemd passes");
            return Vec::new();
        }
    };
    let mut taken = Vec::new();
    for (raw, name) in listed {
        match own(raw) {
            Ok(fd) => taken.push((name, fd)),
            Err(error) => tracing::warn!(name, %error, "cannot take a descriptor from systemd"),
        }
    }
    taken
}

/// Makes a descriptor that is only a number ours.
///
/// `OwnedFd::from_raw_fd` is `unsafe`, which this crate does without: the number is sent to
/// ourselves over a socket, arrives as a descriptor of its own, and the first is closed.
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

/// Passes orders to systemd's store, in order, from a thread of its own: systemd may be busy, and
/// nothing here needs its answer.
#[derive(Debug, Clone)]
pub(super) struct Keeper(Option<SyncSender<Order>>);

impl Keeper {
    /// One that talks to systemd if this process was started by it with a notify socket.
    pub(super) fn start() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self(None);
        }
        let (orders, waiting) = sync_channel(WAITING_ORDERS);
        let spawned = std::thread::Builder::new()
            .name("fdstore".to_owned())
            .spawn(move || carry_out(&waiting));
        match spawned {
            Ok(_) => Self(Some(orders)),
            Err(error) => {
                tracing::error!(%error, "no thread for the descriptor store; a restart will end spares");
                Self(None)
            }
        }
    }

    /// Keeps a copy of `fd` under `name`, beside what has that name already.
    pub(super) fn put(&self, name: String, fd: impl AsFd) {
        if self.0.is_none() {
            return;
        }
        match fd.as_fd().try_clone_to_owned() {
            Ok(copy) => self.order(Order::Put(name, copy)),
            Err(error) => tracing::warn!(name, %error, "cannot copy a descriptor for the store"),
        }
    }

    /// Closes systemd's copies of everything that has this name.
    pub(super) fn remove(&self, name: String) {
        self.order(Order::Remove(name));
    }

    /// Waits until systemd has carried out every order so far; at most some seconds.
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.order(Order::Flush(done));
        // Without a thread the sender is dropped, and that is an answer as well.
        let _ = flushed.await;
    }

    fn order(&self, order: Order) {
        let Some(orders) = &self.0 else { return };
        match orders.try_send(order) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!("systemd does not take descriptors; a restart now would end spares");
            }
            Err(TrySendError::Disconnected(_)) => {
                tracing::error!("the descriptor store's thread is gone");
            }
        }
    }
}

fn carry_out(orders: &Receiver<Order>) {
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
            tracing::warn!(%error, "systemd's descriptor store cannot be reached");
        }
    }
}

/// Waits until systemd has handled what was sent so far (`sd_notify_barrier(3)`): it closes the
/// descriptor it gets. A message of a process that is gone by then is dropped.
fn barrier() -> io::Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    ours.set_read_timeout(Some(FLUSH_TIMEOUT))?;
    // The end of the stream is the answer.
    match ours.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("a barrier was answered with data")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::fd::IntoRawFd as _;

    #[test]
    fn a_number_becomes_a_descriptor_and_is_closed() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let raw = theirs.into_raw_fd();
        let owned = own(raw).unwrap();
        assert_ne!(owned.as_raw_fd(), raw);
        let mut stream = UnixStream::from(owned);
        stream.write_all(b"hello").unwrap();
        drop(stream);
        let mut text = String::new();
        // Ends only if the first copy is closed as well.
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_number_that_names_nothing_is_refused() {
        assert!(own(987_654).is_err());
    }

    #[tokio::test]
    async fn without_systemd_everything_is_a_no_op() {
        let keeper = Keeper(None);
        let (one, _two) = UnixStream::pair().unwrap();
        keeper.put("x".into(), &one);
        keeper.remove("x".into());
        keeper.flush().await;
    }
}
