//! Errors of a slot's sockets.

use std::io;
use std::path::PathBuf;

use crate::pool::SlotId;
use crate::world::Failure;

/// Failure to prepare a slot's sockets or to answer its runner.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The configuration does not have the slot.
    #[error("slot {slot} is not in the configuration")]
    NoSuchSlot {
        /// The slot.
        slot: SlotId,
    },
    /// The slot's socket or FIFO cannot be created.
    #[error(
        "cannot create the sockets of {slot} in {}; `systemd-tmpfiles --create` creates the directory, which must belong to the daemon's user",
        dir.display()
    )]
    Prepare {
        /// The slot.
        slot: SlotId,
        /// Its directory.
        dir: PathBuf,
        /// Answer of the kernel.
        #[source]
        source: io::Error,
    },
    /// No runner waits for a config. Nothing was sent.
    #[error("no runner waits for a config in {slot}")]
    NotWaiting {
        /// The slot.
        slot: SlotId,
    },
    /// The runner has its config, or may have it. Nothing was sent.
    #[error("the runner in {slot} has been answered already")]
    AlreadyAnswered {
        /// The slot.
        slot: SlotId,
    },
    /// The config did not arrive whole. The runner does not get another.
    #[error("cannot send the config to {slot}")]
    Send {
        /// The slot.
        slot: SlotId,
        /// Answer of the kernel.
        #[source]
        source: io::Error,
    },
    /// The slot's task has ended, because the daemon is stopping.
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
            | Self::NotWaiting { .. }
            | Self::AlreadyAnswered { .. }
            | Self::Send { .. }
            | Self::Closed { .. } => false,
        }
    }
}
