//! The programs that run as root, which systemd and the launcher start as parts of a slot's unit.
//!
//! ```text
//! ExecStart=     launch    sweeps ▸ writes the start record ▸ mounts ▸ becomes systemd-nspawn
//!                connect   addresses both ends of the veth, and sets maxima, when the container is ready
//! ExecStopPost=  sweep     writes the end record ▸ removes what the slot left on the host ▸ keeps log files
//! ```
//! Their input is a pool, a slot number and the root-owned configuration. They take nothing from the
//! daemon, so an attacker who controls the daemon can start a slot and no more. The launcher mounts in
//! a mount namespace of its unit. The kernel removes the mounts with the unit's last process.
//!
//! - `rootfs`: the root filesystem of a container
//! - `nspawn`: the arguments and capabilities of `systemd-nspawn`
//! - `own_dir`: the log files of a runner that ended
//! - `ready`: the relay that tells systemd when the container is ready
//! - `console`: the reader that bounds the bytes of a console
//! - `meter`: the disk and network that a runner uses
//! - `link`: the network link
//! - `bounds`: a runner's part of the kernel's shared tables
//! - `held_mounts`: the holder of mounts, a service of the host that outlives a runner's unit
//! - `sandbox`: the privileges that a program gives up
//! - `cleanup`: the search for leftovers, and their removal
//! - `trust`: the files, directories and unit that root relies on
//! - `pinned`: the rules of a running unit, which no deploy changes
//! - `gc_root`: the image's root in the Nix store
//! - `way`: a try of a runner's way to the network, without a runner
//! - `error`: a failure, and its exit status

mod bounds;
mod cleanup;
mod connect;
mod console;
pub(crate) mod error;
mod gc_root;
mod held_mounts;
mod launch;
mod link;
mod meter;
mod nspawn;
mod own_dir;
mod pinned;
mod probe;
mod ready;
mod rootfs;
mod sandbox;
mod sweep;
mod tool;
mod trust;

use crate::config::{Config, Place};
use crate::pool::SlotId;

pub use cleanup::{Leftover, LeftoverKind, count, end_units, leftovers};
pub use connect::connect;
pub use console::{KeptFiles, relay_console};
pub use error::{Refusal, RootError};
pub use held_mounts::hold_mounts;
pub use launch::launch;
pub use probe::ProbeNamespace;
pub use ready::relay_ready;
pub use sweep::{alive_slots, sweep, sweep_all, sweep_unowned};
pub use trust::read_config;

/// Returns the place of a configured slot.
pub fn find_place<'a>(config: &'a Config, id: &SlotId) -> Result<Place<'a>, RootError> {
    config.place(id).ok_or_else(|| {
        RootError::plain(
            Refusal::Config,
            format!("the configuration has no slot {id}"),
        )
    })
}

/// Parses a text in every way in which root parses the host's answers, for [`crate::outside`].
#[cfg(any(test, fuzzing))]
pub(crate) fn try_listing(text: &str) {
    cleanup::try_listing(text);
    own_dir::try_text(text);
    let _ = connect::is_init(text);
    let found = crate::firewall::difference("table", text);
    assert_eq!(found.is_none(), text == "table");
    let (code, status) = text.split_once(' ').unwrap_or_default();
    let _ = sweep::parse_exit(code, status);
}
