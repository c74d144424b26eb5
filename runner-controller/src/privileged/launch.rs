//! `ExecStart=`: the program that builds a slot's container and becomes `systemd-nspawn`.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::cleanup::{connections, groups, slot};
use super::console::{self, KeptFiles};
use super::error::{OrRefuse, Refusal, RootError};
use super::nspawn::{self, families};
use super::{gc_root, pinned, ready, rootfs, sandbox, trust};
use crate::config::Place;
use crate::firewall;
use crate::world::{Invocation, StartRecord, chain};
use crate::{clock, slot_records};

/// Builds the slot's container and becomes `systemd-nspawn`. Returns only on failure.
///
/// `config` is the file in which its programs find the place, too.
#[must_use]
pub fn launch(place: Place<'_>, config: &Path) -> RootError {
    let invocation = match trust::own_unit(&place.id()) {
        Ok(invocation) => invocation,
        Err(error) => return error,
    };
    let kept = KeptFiles::of(&place.records_dir(), &invocation);
    match try_launch(place, config, invocation, &kept) {
        Ok(never) => match never {},
        Err(error) => {
            console::keep_line(&kept.last_line, &chain(&error));
            error
        }
    }
}

fn try_launch(
    place: Place<'_>,
    config: &Path,
    invocation: Invocation,
    kept: &KeptFiles,
) -> Result<Infallible, RootError> {
    groups::claim(place)?;
    // If nft must work, it works while this program mounts. Its answer takes as long as all mounts.
    let refuse = || "check the firewall".to_owned();
    let firewall =
        firewall::Check::begin_if_changed(place.config).or_refuse(Refusal::Firewall, refuse)?;
    let families = families::Question::ask(place.config.nspawn_version())
        .or_refuse(Refusal::Nspawn, ask_version)?;
    let mut failures = slot::remove_around(place.config, &place.id());
    if !failures.is_empty() {
        return Err(failures.swap_remove(0));
    }
    // The slot's link is gone, so the slot has no new connections.
    let connections = connections::Deletion::begin(place.guest_address());
    let rules = pinned::pin(&place.id()).or_refuse(Refusal::Leftovers, || {
        format!("write {}", pinned::path(&place.id()).display())
    })?;
    record_start(place, invocation)?;
    // The garbage collector must not remove the image between its check and its use.
    gc_root::hold(&place.id(), place.pool, &rules).or_refuse(Refusal::Image, || {
        let root = gc_root::path(&place.id());
        format!("create the garbage collector root {}", root.display())
    })?;
    let rootfs = rootfs::build(place)?;
    firewall.finish().or_refuse(Refusal::Firewall, refuse)?;
    connections.finish().or_refuse(Refusal::Leftovers, || {
        let guest = place.guest_address();
        format!("delete connections of {guest} from the host's table, which needs the kernel module nf_conntrack_netlink")
    })?;
    sandbox::before_nspawn()?;
    let families = families
        .argument()
        .or_refuse(Refusal::Nspawn, ask_version)?;
    let arguments = nspawn::arguments(place, &rootfs);
    let notify = place.config.mount_dir().join("notify");
    ready::start(&place.id(), config, &notify)?;
    let console = console::start(kept, &rootfs.root, &place.veth())?;
    let cause = Command::new("systemd-nspawn")
        .args(families)
        .args(arguments)
        .envs(nspawn::ENVIRONMENT)
        .env(ready::NOTIFY_SOCKET, notify)
        // nspawn's own messages go to the journal directly, because systemd kills the reader with nspawn.
        .stdout(console)
        .exec();
    Err(RootError::caused(
        Refusal::Nspawn,
        "become systemd-nspawn",
        cause,
    ))
}

fn ask_version() -> String {
    "ask systemd-nspawn for its version".into()
}

fn record_start(place: Place<'_>, invocation: Invocation) -> Result<(), RootError> {
    let dir = place.records_dir();
    let start = StartRecord {
        invocation,
        generation: place.pool.generation(),
        returns_result: true,
        at: clock::now(),
    };
    slot_records::write_start(&dir, &start).or_refuse(Refusal::Records, || {
        format!("write the start record to {}", dir.display())
    })?;
    slot_records::prune(&dir).or_refuse(Refusal::Records, || {
        format!("remove old records from {}", dir.display())
    })
}
