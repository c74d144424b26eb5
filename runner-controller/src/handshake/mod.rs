//! [`Handshake`] over a socket and a FIFO per slot: a runner asks for its config, and a job reports that
//! it has started.
//!
//! systemd in the container connects to `<run_dir>/slots/<slot>/jit.sock` to load the credential of the
//! runner's unit, and waits. The connection means "booted and ready", and the config is written to it as
//! the answer. `<run_dir>/slots/<slot>/started` is a FIFO for the one line of the job-started hook; bash
//! can write to a FIFO without a helper program in the image.
//!
//! Listeners, FIFOs, waiting connections and markers survive the daemon in systemd's [`fdstore`].
//!
//! - `slot`: the task that owns one slot's sockets
//! - `files`: socket and FIFO as files
//! - `marker`: the exchange with one runner, kept in memory that outlives the daemon
//! - `restore`: descriptors from systemd's store, checked
//! - [`note`]: the line of the job-started hook

mod error;
pub(crate) mod fdstore;
mod files;
mod marker;
pub(crate) mod note;
mod restore;
mod slot;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::pool::SlotId;
use crate::world::{Event, Handshake, JitConfig};

use fdstore::FdStore;
use restore::{Restored, Stored};
use slot::{SlotCommand, SlotSockets};

pub(crate) use error::HandshakeError;

/// Maximum number of commands that wait for a slot's task. A slot is prepared, answered and prepared
/// again, one after the other.
const WAITING_COMMANDS: usize = 4;

/// The sockets of all slots. Dropping it closes the daemon's descriptors; systemd keeps its copies.
#[derive(Debug)]
pub(crate) struct Sockets {
    config: Arc<Config>,
    events: mpsc::Sender<Event>,
    slots: Mutex<HashMap<SlotId, mpsc::Sender<SlotCommand>>>,
    store: FdStore,
}

impl Sockets {
    /// Takes over the sockets that systemd stored. [`Handshake::prepare`] creates the others.
    ///
    /// `descriptors` are those of [`fdstore::take`]. A waiting connection is sent again as
    /// [`Event::ConfigRequested`], and a job's line as [`Event::JobStarted`]. Both are in the channel
    /// when this returns, if it has room for them. Descriptors that are unknown, broken or not at their
    /// configured path are closed here and in the store.
    /// Must be called inside a tokio runtime.
    #[must_use]
    pub(crate) fn open(
        config: Arc<Config>,
        events: mpsc::Sender<Event>,
        descriptors: Vec<(String, OwnedFd)>,
    ) -> Self {
        let store = FdStore::connect();
        let (mut restored, without_config) = restore::sort(&config, descriptors, &store);
        for slot in without_config {
            // A full channel loses it, and then the runner counts as one that may have its config.
            let _ = events.try_send(Event::ConfigNotGiven { slot });
        }
        let sockets = Self {
            config,
            events,
            slots: Mutex::default(),
            store,
        };
        for slot in sockets.config.slots().collect::<Vec<_>>() {
            let restored = restored.remove(&slot).unwrap_or_default();
            if let Err(error) = sockets.open_slot(&slot, restored) {
                tracing::warn!(%slot, %error, "{slot}: cannot use the stored descriptors: {error}");
                for stored in Stored::ALL {
                    sockets.store.remove(stored.name(&slot));
                }
            }
        }
        sockets
    }

    /// Waits until systemd has a copy of every descriptor, at most some seconds. To be called before an
    /// orderly exit, because systemd drops messages of a process that has ended.
    pub(crate) async fn flush(&self) {
        self.store.flush().await;
    }

    fn open_slot(
        &self,
        id: &SlotId,
        restored: Restored,
    ) -> Result<mpsc::Sender<SlotCommand>, HandshakeError> {
        let Some(place) = self.config.place(id) else {
            return Err(HandshakeError::NoSuchSlot { slot: id.clone() });
        };
        let dir = place.socket_dir();
        let mut slot = SlotSockets::new(
            id.clone(),
            dir.clone(),
            place.uid_first(),
            restored,
            self.store.clone(),
        )
        .map_err(|source| HandshakeError::Prepare {
            slot: id.clone(),
            dir,
            source,
        })?;
        slot.send_now(&self.events);
        let (commands, waiting) = mpsc::channel(WAITING_COMMANDS);
        tokio::spawn(slot.run(waiting, self.events.clone()));
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.insert(id.clone(), commands.clone());
        Ok(commands)
    }

    async fn send(
        &self,
        slot: &SlotId,
        command: impl FnOnce(oneshot::Sender<Result<(), HandshakeError>>) -> SlotCommand,
    ) -> Result<(), HandshakeError> {
        let known = self
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(slot)
            .cloned();
        let commands = match known {
            Some(commands) => commands,
            // The slot's stored descriptors could not be used.
            None => self.open_slot(slot, Restored::default())?,
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
        self.send(slot, SlotCommand::Prepare).await
    }

    async fn answer(&self, slot: &SlotId, config: JitConfig) -> Result<(), HandshakeError> {
        self.send(slot, |done| SlotCommand::Answer(config, done))
            .await
    }
}

/// Checks for [`crate::outside`] that a job's line and a marker are read without panic and within their
/// bounds.
#[cfg(any(test, fuzzing))]
pub(crate) fn try_bytes(bytes: &[u8]) {
    if let Ok(note) = note::parse(bytes) {
        note::ensure_bounded(&note);
    }
    marker::try_bytes(bytes);
}

#[cfg(test)]
mod tests;
