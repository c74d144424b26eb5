//! Descriptors of slots that systemd stored while no daemon ran.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use super::fdstore::FdStore;
use super::files;
use super::marker::{Answer, Exchange, Marker};
use crate::config::Config;
use crate::pool::SlotId;

/// A descriptor that a slot has in systemd's store.
pub(super) enum Stored {
    /// Listener of the slot's socket.
    Listener,
    /// FIFO for job-started lines.
    Fifo,
    /// Connection of a runner that waits for its config.
    Waiting,
    /// [`Marker`] of the slot's runner.
    Marker,
}

impl Stored {
    pub(super) const ALL: [Self; 4] = [Self::Listener, Self::Fifo, Self::Waiting, Self::Marker];

    fn prefix(&self) -> &'static str {
        match self {
            Self::Listener => "jit",
            Self::Fifo => "started",
            Self::Waiting => "ask",
            Self::Marker => "life",
        }
    }

    /// Returns the descriptor's name in the store.
    pub(super) fn name(&self, slot: &SlotId) -> String {
        format!("{}.{slot}", self.prefix())
    }
}

/// Checked descriptors of one slot.
#[derive(Default)]
pub(super) struct Restored {
    pub(super) listener: Option<OwnedFd>,
    pub(super) fifo: Option<OwnedFd>,
    pub(super) waiting: Option<OwnedFd>,
    pub(super) exchange: Option<(Marker, Exchange)>,
}

/// Sorts descriptors by slot. Each is closed, here and in the store, unless it is what its name says
/// and belongs to a configured slot. Returns the other slots whose runner has no config, too. It can get none
/// any more, because nothing listens for it.
pub(super) fn sort(
    config: &Config,
    descriptors: Vec<(String, OwnedFd)>,
    store: &FdStore,
) -> (HashMap<SlotId, Restored>, Vec<SlotId>) {
    let mut slots: HashMap<SlotId, Restored> = HashMap::new();
    let mut without_config = Vec::new();
    for (name, fd) in descriptors {
        if let Some(slot) = unconfigured(config, &name)
            && let Ok(copy) = fd.try_clone()
            && let Ok((_, exchange)) = Marker::restored(copy)
            && exchange.answer == Answer::Due
        {
            without_config.push(slot);
        }
        if let Err(reason) = check(config, &mut slots, &name, fd) {
            tracing::warn!(
                name,
                reason,
                "closed descriptor {name} from systemd's store: {reason}"
            );
            store.remove(name);
        }
    }
    for (slot, restored) in &mut slots {
        drop_moved_listener(config, slot, restored, store);
    }
    (slots, without_config)
}

/// Returns the slot of a marker if the configuration does not have it.
fn unconfigured(config: &Config, name: &str) -> Option<SlotId> {
    let (prefix, slot) = name.split_once('.')?;
    let slot: SlotId = slot.parse().ok()?;
    let is_other = prefix == Stored::Marker.prefix() && config.place(&slot).is_none();
    is_other.then_some(slot)
}

/// Adds a descriptor to its slot, or returns the reason to close it.
fn check(
    config: &Config,
    slots: &mut HashMap<SlotId, Restored>,
    name: &str,
    fd: OwnedFd,
) -> Result<(), &'static str> {
    const UNKNOWN: &str = "its name is unknown";
    let (prefix, slot) = name.split_once('.').ok_or(UNKNOWN)?;
    let slot: SlotId = slot.parse().map_err(|_| UNKNOWN)?;
    let place = config
        .place(&slot)
        .ok_or("the configuration does not have its slot")?;
    let stored = Stored::ALL
        .into_iter()
        .find(|stored| stored.prefix() == prefix)
        .ok_or(UNKNOWN)?;
    let dir = place.socket_dir();
    let entry = slots.entry(slot).or_default();
    let (is_genuine, is_second) = match stored {
        Stored::Listener => (
            files::is_listener_at(&fd, &files::socket(&dir)),
            entry.listener.is_some(),
        ),
        Stored::Fifo => (files::is_at(&fd, &files::fifo(&dir)), entry.fifo.is_some()),
        Stored::Waiting => (
            files::is_connection_of(&fd, place.uid_first()),
            entry.waiting.is_some(),
        ),
        Stored::Marker => (true, entry.exchange.is_some()),
    };
    if !is_genuine {
        return Err("it is not what its name says, or its file was replaced");
    }
    if is_second {
        // The store removes by name, so removing the second copy would remove the first one.
        return Ok(());
    }
    match stored {
        Stored::Listener => entry.listener = Some(fd),
        Stored::Fifo => entry.fifo = Some(fd),
        Stored::Waiting => entry.waiting = Some(fd),
        Stored::Marker => {
            let exchange = Marker::restored(fd).map_err(|_| "it is not a runner's marker")?;
            entry.exchange = Some(exchange);
        }
    }
    Ok(())
}

/// Closes a listener whose socket is not at its path any more, because no container can reach it.
fn drop_moved_listener(config: &Config, slot: &SlotId, restored: &mut Restored, store: &FdStore) {
    let Some(place) = config.place(slot) else {
        return;
    };
    let bound = restored
        .exchange
        .as_ref()
        .and_then(|(_, exchange)| exchange.listener);
    let there = files::socket_inode(&files::socket(&place.socket_dir()));
    if restored.listener.is_some() && (bound.is_none() || bound != there) {
        tracing::warn!(%slot, "{slot}: the socket was replaced; the next start of the slot creates it anew");
        restored.listener = None;
        store.remove(Stored::Listener.name(slot));
    }
}
