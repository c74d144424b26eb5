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

mod capabilities;
mod confine;
pub(crate) mod error;
mod gc_root;
mod guest_files;
mod layer;
mod leftovers;
mod link;
mod nspawn;
mod root;
mod store;
mod sweep;
#[cfg(test)]
pub(crate) mod testing;
mod trust;

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::config::{Config, Place};
use crate::firewall;
use crate::pool::SlotId;
use crate::world::{Invocation, StartRecord};
use crate::{clock, slot_records};

pub use error::{LaunchError, Refusal};
pub use leftovers::{Leftover, LeftoverKind, count, end_units, leftovers};
pub use link::connect;
pub use sweep::{sweep, sweep_all, sweep_unowned};
pub use trust::read_config;

use error::OrRefuse;

/// Who the daemon is; owner of the slots' socket directories.
pub const DAEMON_USER: &str = "runner-controller";

/// How many lives of a slot keep their records.
const RECORDS_KEPT: usize = 8;

/// Where every launcher mounts, each in its own mount namespace: on the host it stays empty.
#[must_use]
pub fn mount_dir(config: &Config) -> PathBuf {
    config.run_dir.join("mnt")
}

/// The place of a slot, if the configuration has it.
pub fn find_place<'a>(config: &'a Config, id: &SlotId) -> Result<Place<'a>, LaunchError> {
    config.place(id).ok_or_else(|| {
        LaunchError::plain(
            Refusal::Config,
            format!("the configuration has no slot {id}"),
        )
    })
}

/// Builds the slot's container and becomes `systemd-nspawn`. Returns only if that failed.
#[must_use]
pub fn launch(place: Place<'_>) -> LaunchError {
    match try_launch(place) {
        Ok(never) => match never {},
        Err(why) => why,
    }
}

/// What [`crate::outside`] tries: what root reads of the host.
#[cfg(any(test, fuzzing))]
pub(crate) fn try_listing(text: &str) {
    leftovers::try_listing(text);
    let _ = link::is_init(text);
    let found = firewall::difference("table", text);
    assert_eq!(found.is_none(), text == "table");
    let (code, status) = text.split_once(' ').unwrap_or_default();
    let _ = sweep::exit(code, status);
}

fn try_launch(place: Place<'_>) -> Result<Infallible, LaunchError> {
    let invocation = trust::own_unit(&place.id())?;
    // Asks nft while the mounts are being made: the answer takes as long as all of them.
    let refuse = || "check the firewall".to_owned();
    let firewall = firewall::Check::begin(place.config).or_refuse(Refusal::Firewall, refuse)?;
    let mut left = sweep::sweep_host(&place.id());
    if !left.is_empty() {
        return Err(left.swap_remove(0));
    }
    record_start(place, invocation)?;
    // Before anything of it is looked at: what is there by then stays.
    gc_root::hold(&place.id(), &place.pool.image).or_refuse(Refusal::Image, || {
        let root = gc_root::path(&place.id());
        format!("keep it from the garbage collector by {}", root.display())
    })?;
    let tree = root::build(place)?;
    firewall.finish().or_refuse(Refusal::Firewall, refuse)?;
    confine::before_nspawn()?;
    let arguments = nspawn::arguments(place, &tree);
    let failed = Command::new("systemd-nspawn")
        .args(arguments)
        .envs(nspawn::ENVIRONMENT)
        .exec();
    Err(LaunchError::caused(
        Refusal::Nspawn,
        "become systemd-nspawn",
        failed,
    ))
}

fn record_start(place: Place<'_>, invocation: Invocation) -> Result<(), LaunchError> {
    let dir = place.records_dir();
    let start = StartRecord {
        invocation,
        generation: place.pool.generation(),
        at: clock::now(),
    };
    slot_records::write_start(&dir, &start).or_refuse(Refusal::Records, || {
        format!("write the start record to {}", dir.display())
    })?;
    slot_records::prune(&dir, RECORDS_KEPT)
        .or_refuse(Refusal::Records, || format!("prune {}", dir.display()))
}
