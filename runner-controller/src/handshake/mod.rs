//! [`Handshake`] over a socket and a FIFO per slot: a runner asks for its config, a job says that
//! it started.
//!
//! `<run_dir>/slots/<slot>/jit.sock` is where systemd in the container connects for the credential
//! of the runner's unit, and waits: that connection is the news "booted and ready", and writing
//! the config to it is the answer. `<run_dir>/slots/<slot>/started` takes the one line of the
//! job-started hook; a FIFO, because bash can write it without any helper in the image.
//!
//! Listeners, FIFOs, waiting connections and what each life was given survive the daemon in
//! systemd's [`fdstore`].

pub mod fdstore;
mod files;
mod marker;
pub mod note;
mod slot;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::pool::SlotId;
use crate::world::{Event, Failure, Handshake, JitConfig};

use fdstore::Keeper;
use marker::Marker;
use slot::{Command, Kept, Slot, Stored};

/// A slot is prepared, answered and prepared again; nobody queues more than that.
const WAITING_COMMANDS: usize = 4;

/// Why a slot's sockets did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The configuration has no such slot.
    #[error("slot {slot} is not in the configuration")]
    NoSuchSlot {
        /// The slot.
        slot: SlotId,
    },
    /// The slot's socket or FIFO cannot be made.
    #[error(
        "cannot prepare the sockets of {slot} in {}; the directory is made by `systemd-tmpfiles --create` and must belong to the daemon's user",
        dir.display()
    )]
    Prepare {
        /// The slot.
        slot: SlotId,
        /// Its directory.
        dir: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No container waits for a config. Nothing was sent.
    #[error("nobody waits for a config in {slot}")]
    NobodyWaits {
        /// The slot.
        slot: SlotId,
    },
    /// This life was answered, or may have been. Nothing was sent.
    #[error("the runner in {slot} has been answered already")]
    AlreadyAnswered {
        /// The slot.
        slot: SlotId,
    },
    /// The config did not reach the container whole. This life will not get another.
    #[error("cannot send its config to {slot}")]
    Send {
        /// The slot.
        slot: SlotId,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The slot's task has ended: the daemon is shutting down.
    #[error("the sockets of {slot} are closed")]
    Closed {
        /// The slot.
        slot: SlotId,
    },
}

impl Failure for HandshakeError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Prepare { .. } => true,
            Self::NoSuchSlot { .. }
            | Self::NobodyWaits { .. }
            | Self::AlreadyAnswered { .. }
            | Self::Send { .. }
            | Self::Closed { .. } => false,
        }
    }
}

/// What was counted since the daemon started.
#[derive(Debug, Default)]
pub struct Counts {
    answered: AtomicU64,
    foreign: AtomicU64,
    surplus: AtomicU64,
    job_lines: AtomicU64,
    garbled: AtomicU64,
}

/// A look at [`Counts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Configs handed over.
    pub answered: u64,
    /// Connections refused because the peer was not root of its container.
    pub foreign: u64,
    /// Connections refused because one was waiting, or the life had its config.
    pub surplus: u64,
    /// Job-started lines read.
    pub job_lines: u64,
    /// Those that were not understood.
    pub garbled: u64,
}

impl Counts {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn observe(&self) -> Counted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted {
            answered: read(&self.answered),
            foreign: read(&self.foreign),
            surplus: read(&self.surplus),
            job_lines: read(&self.job_lines),
            garbled: read(&self.garbled),
        }
    }
}

/// The sockets of all slots. Dropping it closes our copies; systemd keeps its own.
#[derive(Debug)]
pub struct Sockets {
    config: Arc<Config>,
    events: mpsc::Sender<Event>,
    slots: Mutex<HashMap<SlotId, mpsc::Sender<Command>>>,
    keeper: Keeper,
    counts: Arc<Counts>,
}

impl Sockets {
    /// Opens the sockets that systemd kept; the others are made by [`Handshake::prepare`].
    ///
    /// `restored` is what [`fdstore::take`] gave, less what belongs to others. A waiting
    /// connection is told again as [`Event::ConfigRequested`], a job's line as [`Event::JobStarted`], and
    /// both are in the channel when this returns, if it has the room. What is unknown, broken or
    /// not where the configuration says is closed here and in the store.
    /// Must be called inside a tokio runtime.
    #[must_use]
    pub fn open(
        config: Arc<Config>,
        events: mpsc::Sender<Event>,
        restored: Vec<(String, OwnedFd)>,
    ) -> Self {
        let keeper = Keeper::start();
        let mut kept: HashMap<SlotId, Kept> = HashMap::new();
        for (name, fd) in restored {
            if let Err(why) = check(&config, &mut kept, &name, fd) {
                tracing::warn!(name, why, "closed a descriptor that systemd had kept");
                keeper.remove(name);
            }
        }
        for (slot, kept) in &mut kept {
            distrust_moved_listener(&config, slot, kept, &keeper);
        }
        let sockets = Self {
            config,
            events,
            slots: Mutex::default(),
            keeper,
            counts: Arc::default(),
        };
        for slot in sockets.config.slots().collect::<Vec<_>>() {
            let kept = kept.remove(&slot).unwrap_or_default();
            if let Err(error) = sockets.open_slot(&slot, kept) {
                tracing::warn!(%slot, %error, "cannot use what systemd kept for this slot");
                for stored in Stored::ALL {
                    sockets.keeper.remove(stored.name(&slot));
                }
            }
        }
        sockets
    }

    /// What was counted since the daemon started.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.counts.observe()
    }

    /// Waits until systemd holds a copy of everything, at most some seconds. To be called before
    /// an orderly exit: messages of a process that is gone are dropped.
    pub async fn flush(&self) {
        self.keeper.flush().await;
    }

    fn open_slot(&self, id: &SlotId, kept: Kept) -> Result<mpsc::Sender<Command>, HandshakeError> {
        let Some(place) = self.config.place(id) else {
            return Err(HandshakeError::NoSuchSlot { slot: id.clone() });
        };
        let dir = place.socket_dir();
        let mut slot = Slot::new(
            id.clone(),
            dir.clone(),
            place.uid_first(),
            kept,
            self.keeper.clone(),
            Arc::clone(&self.counts),
        )
        .map_err(|source| HandshakeError::Prepare {
            slot: id.clone(),
            dir,
            source,
        })?;
        slot.tell(&self.events);
        let (commands, waiting) = mpsc::channel(WAITING_COMMANDS);
        tokio::spawn(slot.run(waiting, self.events.clone()));
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.insert(id.clone(), commands.clone());
        Ok(commands)
    }

    async fn ask(
        &self,
        slot: &SlotId,
        command: impl FnOnce(oneshot::Sender<Result<(), HandshakeError>>) -> Command,
    ) -> Result<(), HandshakeError> {
        let known = self
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(slot)
            .cloned();
        let commands = match known {
            Some(commands) => commands,
            // What systemd kept for it could not be used.
            None => self.open_slot(slot, Kept::default())?,
        };
        let closed = || HandshakeError::Closed { slot: slot.clone() };
        let (done, result) = oneshot::channel();
        commands.send(command(done)).await.map_err(|_| closed())?;
        result.await.map_err(|_| closed())?
    }
}

impl Handshake for Sockets {
    type Error = HandshakeError;

    async fn prepare(&self, slot: &SlotId) -> Result<(), HandshakeError> {
        self.ask(slot, Command::Prepare).await
    }

    async fn answer(&self, slot: &SlotId, config: JitConfig) -> Result<(), HandshakeError> {
        self.ask(slot, |done| Command::Answer(config, done)).await
    }
}

/// What [`crate::outside`] tries: a job's line, and what systemd kept of a life.
#[cfg(any(test, fuzzing))]
pub(crate) fn try_bytes(bytes: &[u8]) {
    if let Ok(note) = note::parse(bytes) {
        note::ensure_bounded(&note);
    }
    marker::try_bytes(bytes);
}

/// Sorts one kept descriptor to its slot, or says why it is not wanted.
fn check(
    config: &Config,
    kept: &mut HashMap<SlotId, Kept>,
    name: &str,
    fd: OwnedFd,
) -> Result<(), &'static str> {
    let (prefix, slot) = name.split_once('.').ok_or("not a name of ours")?;
    let slot: SlotId = slot.parse().map_err(|_| "not a name of ours")?;
    let place = config.place(&slot).ok_or("no such slot any more")?;
    let stored = Stored::ALL
        .into_iter()
        .find(|stored| stored.prefix() == prefix)
        .ok_or("not a name of ours")?;
    let dir = place.socket_dir();
    let entry = kept.entry(slot).or_default();
    let (good, double) = match stored {
        Stored::Listener => (
            files::is_listener_at(&fd, &files::socket(&dir)),
            entry.listener.is_some(),
        ),
        Stored::Fifo => (files::is_at(&fd, &files::fifo(&dir)), entry.fifo.is_some()),
        Stored::Waiting => (
            files::is_connection_of(&fd, place.uid_first()),
            entry.waiting.is_some(),
        ),
        Stored::Runner => (true, entry.runner.is_some()),
    };
    if !good {
        return Err("not what its name says, or not where it was");
    }
    if double {
        // The store forgets by name, so the second copy goes when the first one does.
        return Ok(());
    }
    match stored {
        Stored::Listener => entry.listener = Some(fd),
        Stored::Fifo => entry.fifo = Some(fd),
        Stored::Waiting => entry.waiting = Some(fd),
        Stored::Runner => {
            entry.runner = Some(Marker::restored(fd).map_err(|_| "not a life's marker")?);
        }
    }
    Ok(())
}

/// Closes a kept listener whose socket is no longer at its path: nobody can reach it.
fn distrust_moved_listener(config: &Config, slot: &SlotId, kept: &mut Kept, keeper: &Keeper) {
    let Some(place) = config.place(slot) else {
        return;
    };
    let bound = kept.runner.as_ref().and_then(|(_, runner)| runner.listener);
    let there = files::socket_inode(&files::socket(&place.socket_dir()));
    if kept.listener.is_some() && (bound.is_none() || bound != there) {
        tracing::warn!(%slot, "the socket of this slot was moved away; made anew at its next start");
        kept.listener = None;
        keeper.remove(Stored::Listener.name(slot));
    }
}

#[cfg(test)]
mod tests;
