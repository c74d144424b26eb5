//! `ExecStart=`: the program that builds a slot's container and becomes `systemd-nspawn`.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::cleanup::slot;
use super::error::{OrRefuse, Refusal, RootError};
use super::{gc_root, nspawn, rootfs, sandbox, trust};
use crate::config::Place;
use crate::firewall;
use crate::world::{Invocation, StartRecord};
use crate::{clock, slot_records};

/// Number of runners of a slot whose records are kept.
const RECORDS_KEPT: usize = 8;

/// Builds the slot's container and becomes `systemd-nspawn`. Returns only if that failed.
#[must_use]
pub fn launch(place: Place<'_>) -> RootError {
    match try_launch(place) {
        Ok(never) => match never {},
        Err(why) => why,
    }
}

fn try_launch(place: Place<'_>) -> Result<Infallible, RootError> {
    let invocation = trust::own_unit(&place.id())?;
    // Asks nft while the mounts are being made: the answer takes as long as all of them.
    let refuse = || "check the firewall".to_owned();
    let firewall = firewall::Check::begin(place.config).or_refuse(Refusal::Firewall, refuse)?;
    let mut left = slot::remove_all(&place.id());
    if !left.is_empty() {
        return Err(left.swap_remove(0));
    }
    record_start(place, invocation)?;
    // Before anything of it is looked at: what is there by then stays.
    gc_root::hold(&place.id(), &place.pool.image).or_refuse(Refusal::Image, || {
        let root = gc_root::path(&place.id());
        format!("keep it from the garbage collector by {}", root.display())
    })?;
    let tree = rootfs::build(place)?;
    firewall.finish().or_refuse(Refusal::Firewall, refuse)?;
    sandbox::before_nspawn()?;
    let arguments = nspawn::arguments(place, &tree);
    let failed = Command::new("systemd-nspawn")
        .args(arguments)
        .envs(nspawn::ENVIRONMENT)
        .exec();
    Err(RootError::caused(
        Refusal::Nspawn,
        "become systemd-nspawn",
        failed,
    ))
}

fn record_start(place: Place<'_>, invocation: Invocation) -> Result<(), RootError> {
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
