//! The holder: a program that keeps the mounts of a runner until the processes of its unit are gone, and then lets the
//! kernel free the runner's files.
//!
//! The kernel frees a layer in memory file by file, in the process that drops the last reference to its mount. Without
//! the holder that is the last process of the unit, and the slot waits for it: some seconds for a million files. The
//! holder has the last reference, so the unit ends at once, and a thread of the holder waits instead.
//!
//! A mount namespace is a descriptor here. It gives no access to the mounts without `CAP_SYS_ADMIN`, which the holder
//! does not have. If the holder ends, the kernel frees what it held, and containers that still run are not held. Then
//! their slots wait, as they would without it.

mod message;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use tracing::{info, warn};

use super::error::{OrRefuse, Refusal, RootError};
use crate::config::{Layer, PoolConfig};
use crate::pool::SlotId;
use crate::telemetry;

pub(crate) use message::{MAX_PROCESSES, send};

/// Maximum number of a slot's ended runners whose files the kernel frees at the same time.
///
/// The mounts of a runner are taken at its start, when the files of the one before are often still being freed. With
/// a maximum of one, every second runner with many files would wait.
const MAX_FREEING: usize = 2;
/// Size of the stack of a thread, which only closes a descriptor and writes a line.
const STACK_BYTES: usize = 256 * 1024;
/// Time from which the removal of a runner's files is worth a line in the journal.
const SLOW: Duration = Duration::from_secs(1);

/// Returns true if the mounts of a pool's runners are held.
///
/// The files of an ended runner exist beside the next one until the kernel has freed them. A layer on disk has promised
/// its space to the next layer. The slice of a pool with a memory total counts the memory of both, and would kill.
pub(crate) fn are_held(pool: &PoolConfig) -> bool {
    match pool.layer {
        Layer::Disk { .. } => false,
        Layer::Tmpfs { .. } => pool.total.memory.is_none(),
    }
}

/// Holds the mounts that `connect` sends to the socket on standard input, until the process is killed.
pub fn hold_mounts() -> Result<(), RootError> {
    telemetry::init();
    let refuse = || "hold mounts of containers".to_owned();
    run().or_refuse(Refusal::Mounts, refuse)
}

/// A failure ends the process. The next message starts another one.
fn run() -> io::Result<()> {
    let listener = io::stdin().as_fd().try_clone_to_owned()?;
    if !getsockopt(&listener, sockopt::AcceptConn)? {
        return Err(io::Error::other("standard input is not a listening socket"));
    }
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    let mut holder = Holder::default();
    loop {
        holder.wait(&listener)?;
        while let Some(connection) = accept(&listener)? {
            take(&mut holder, &connection);
        }
    }
}

fn accept(listener: &UnixListener) -> io::Result<Option<UnixStream>> {
    loop {
        match listener.accept() {
            Ok((connection, _)) => return Ok(Some(connection)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns true if the next call may find another connection.
fn is_passing(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == ErrorKind::Interrupted || kind == ErrorKind::ConnectionAborted
}

/// Takes the mounts of a message.
fn take(holder: &mut Holder<OwnedFd>, connection: &UnixStream) {
    let message = match message::receive(connection) {
        Ok(message) => message,
        Err(refused) => {
            warn!(%refused, "refused a message: {refused}");
            return;
        }
    };
    let slot = message.slot.clone();
    if !holder.hold(message.slot, message.namespace, message.processes) {
        info!(
            %slot,
            "do not hold the mounts of {slot}: the files of {MAX_FREEING} earlier runners are still being freed; \
             the slot waits after its next runner"
        );
    }
}

/// Mounts of a container, and the processes that it waits for.
#[derive(Debug)]
struct Living<M> {
    mounts: M,
    processes: Vec<OwnedFd>,
}

/// Mounts of all containers: at most one that lives for each slot, and [`MAX_FREEING`] that are being freed.
#[derive(Debug)]
struct Holder<M> {
    living: BTreeMap<SlotId, Living<M>>,
    freeing: BTreeMap<SlotId, Vec<JoinHandle<()>>>,
}

impl<M> Default for Holder<M> {
    fn default() -> Self {
        Self {
            living: BTreeMap::new(),
            freeing: BTreeMap::new(),
        }
    }
}

impl<M: Send + 'static> Holder<M> {
    /// Holds the mounts of a slot's new container. Returns false if too many are being freed.
    fn hold(&mut self, slot: SlotId, mounts: M, processes: Vec<OwnedFd>) -> bool {
        // systemd runs one unit of a slot at a time, so an earlier container has ended.
        self.release(&slot);
        self.freeing.retain(|_, threads| {
            threads.retain(|thread| !thread.is_finished());
            !threads.is_empty()
        });
        let freeing = self.freeing.get(&slot).map_or(0, Vec::len);
        if freeing < MAX_FREEING {
            self.living.insert(slot, Living { mounts, processes });
        }
        freeing < MAX_FREEING
    }

    /// Waits until a connection is there or a process has ended, and releases the mounts of containers whose processes
    /// have all ended.
    fn wait(&mut self, listener: &impl AsFd) -> io::Result<()> {
        // The processes of a container are waited for one after the other.
        let waiting: Vec<(&SlotId, &OwnedFd)> = self
            .living
            .iter()
            .filter_map(|(slot, one)| Some((slot, one.processes.last()?)))
            .collect();
        let mut set: Vec<PollFd<'_>> = std::iter::once(listener.as_fd())
            .chain(waiting.iter().map(|(_, process)| process.as_fd()))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut set, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let changed: Vec<SlotId> = waiting
            .iter()
            .zip(set.iter().skip(1))
            .filter(|(_, process)| process.any() != Some(false))
            .map(|((slot, _), _)| (*slot).clone())
            .collect();
        for slot in changed {
            if let Some(one) = self.living.get_mut(&slot) {
                one.processes.pop();
                if one.processes.is_empty() {
                    self.release(&slot);
                }
            }
        }
        Ok(())
    }

    /// Drops the mounts of a slot's container in a new thread, because the kernel frees their files meanwhile.
    fn release(&mut self, slot: &SlotId) {
        let Some(Living { mounts, .. }) = self.living.remove(slot) else {
            return;
        };
        let name = slot.to_string();
        let thread = thread::Builder::new().name(name.clone());
        match thread
            .stack_size(STACK_BYTES)
            .spawn(move || free(&name, mounts))
        {
            Ok(thread) => self.freeing.entry(slot.clone()).or_default().push(thread),
            // The failed call has dropped the mounts.
            Err(error) => warn!(
                %slot, %error,
                "freed the files of {slot} without a thread: {error}; other slots waited meanwhile"
            ),
        }
    }
}

fn free<M>(slot: &str, mounts: M) {
    let begun = Instant::now();
    drop(mounts);
    let took = begun.elapsed();
    if took >= SLOW {
        let seconds = took.as_secs_f64();
        info!(
            slot,
            seconds, "freed the files of an ended runner of {slot} in {seconds:.1} s"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::{Child, Command};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;
    use crate::config::{ByteSize, testing};

    fn slot(name: &str) -> SlotId {
        name.parse().unwrap()
    }

    fn sleeping() -> (Child, OwnedFd) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        (child, pidfd_open(pid, PidfdFlags::empty()).unwrap())
    }

    fn end(child: &mut Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn mounts_are_dropped_after_the_last_process_of_their_container() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let (mut dropped, mounts) = io::pipe().unwrap();
        let ((mut one, one_fd), (mut two, two_fd)) = (sleeping(), sleeping());
        let (mut other, other_fd) = sleeping();
        let (_other, mounts_of_other) = io::pipe().unwrap();
        let mut holder = Holder::default();
        assert!(holder.hold(slot("ci-1"), mounts, vec![one_fd, two_fd]));
        assert!(holder.hold(slot("ci-2"), mounts_of_other, vec![other_fd]));
        end(&mut two);
        holder.wait(&listener).unwrap();
        assert_eq!(holder.living.len(), 2);
        end(&mut one);
        holder.wait(&listener).unwrap();
        assert!(holder.living.contains_key(&slot("ci-2")) && holder.living.len() == 1);
        // This returns when the other end is closed.
        assert_eq!(dropped.read(&mut [0]).unwrap(), 0);
        end(&mut other);
    }

    #[test]
    fn a_connection_is_waited_for_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut holder = Holder::<OwnedFd>::default();
        let connected = UnixStream::connect(&path).unwrap();
        holder.wait(&listener).unwrap();
        assert!(accept(&listener).unwrap().is_some());
        assert!(accept(&listener).unwrap().is_none());
        drop(connected);
    }

    /// Mounts whose files the kernel frees until the other end of the channel is dropped.
    struct Slow(Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }

    fn slow() -> (Sender<()>, Slow) {
        let (gate, closed) = channel();
        (gate, Slow(closed))
    }

    #[test]
    fn a_slot_has_at_most_two_ended_runners_whose_files_are_being_freed() {
        let mut holder = Holder::default();
        let ((first_gate, first), (second_gate, second)) = (slow(), slow());
        // Each one is released when the next one of its slot starts.
        assert!(holder.hold(slot("ci-1"), first, Vec::new()));
        assert!(holder.hold(slot("ci-1"), second, Vec::new()));
        let (gate, third) = slow();
        drop(gate);
        assert!(!holder.hold(slot("ci-1"), third, Vec::new()));
        assert!(!holder.living.contains_key(&slot("ci-1")));
        assert_eq!(holder.freeing[&slot("ci-1")].len(), MAX_FREEING);
        // Another slot is not concerned.
        let (_gate, other) = slow();
        assert!(holder.hold(slot("ci-2"), other, Vec::new()));
        drop((first_gate, second_gate));
        let is_freeing = |holder: &Holder<Slow>| {
            let threads = &holder.freeing[&slot("ci-1")];
            threads.iter().any(|thread| !thread.is_finished())
        };
        while is_freeing(&holder) {
            thread::yield_now();
        }
        let (_gate, fourth) = slow();
        assert!(holder.hold(slot("ci-1"), fourth, Vec::new()));
        assert!(holder.freeing.is_empty());
    }

    #[test]
    fn a_layer_on_disk_and_a_pool_with_a_memory_total_are_not_held() {
        let mut pool = testing::pool("ci", 0);
        pool.layer = Layer::Tmpfs {
            size: ByteSize(1 << 30),
        };
        assert!(are_held(&pool));
        pool.total.memory = Some(ByteSize(8 << 30));
        assert!(!are_held(&pool));
        pool.total.memory = None;
        pool.layer = Layer::Disk {
            size: ByteSize(1 << 30),
        };
        assert!(!are_held(&pool));
    }
}
