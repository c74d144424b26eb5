//! What root does for one slot, started by systemd as parts of the slot's unit.
//!
//! ```text
//! ExecStart=      launch    sweep ▸ start record ▸ mounts ▸ becomes systemd-nspawn
//! ExecStartPost=  connect   addresses both ends of the veth, once the container is ready
//! ExecStopPost=   sweep     end record ▸ removes whatever the slot left on the host
//! ```
//! They take a pool, a slot number and the root-owned configuration, and nothing from the daemon:
//! who owns the daemon owns no more of root than "start slot 3". Mounts are made in a mount
//! namespace of the launcher's own, so they are gone with its last process, however that one ended.

mod cleanup;
mod connect;
pub(crate) mod error;
mod gc_root;
mod launch;
mod link;
mod nspawn;
mod rootfs;
mod sandbox;
mod sweep;
mod tool;
mod trust;

use crate::config::{Config, Place};
use crate::pool::SlotId;

pub use cleanup::{Leftover, LeftoverKind, count, end_units, leftovers};
pub use connect::connect;
pub use error::{Refusal, RootError};
pub use launch::launch;
pub use sweep::{sweep, sweep_all, sweep_unowned};
pub use trust::read_config;

/// The place of a slot, if the configuration has it.
pub fn find_place<'a>(config: &'a Config, id: &SlotId) -> Result<Place<'a>, RootError> {
    config.place(id).ok_or_else(|| {
        RootError::plain(
            Refusal::Config,
            format!("the configuration has no slot {id}"),
        )
    })
}

/// What [`crate::outside`] tries: what root reads of the host.
#[cfg(any(test, fuzzing))]
pub(crate) fn try_listing(text: &str) {
    cleanup::try_listing(text);
    let _ = connect::is_init(text);
    let found = crate::firewall::difference("table", text);
    assert_eq!(found.is_none(), text == "table");
    let (code, status) = text.split_once(' ').unwrap_or_default();
    let _ = sweep::exit(code, status);
}
