//! Many containers on the host: how many it carries, their configuration, and their end.

use std::fs;

use anyhow::{Context, Result};

use crate::bed::note;
use crate::bench::timeline::{self, SlotEvent};
use crate::bench::usage::field;
use crate::config::Config;
use crate::hook;
use crate::journal::{self, Mark};
use crate::lab::{DAEMON, Lab, SLOT_UNITS};

/// Available memory for each container that is started: several times its cost, for the machine's other work.
const ROOM: u64 = 64 << 20;

/// Returns the memory that the machine can still give to programs, in bytes.
pub(super) fn available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kilobytes = field(&text, "MemAvailable:").context("cannot read MemAvailable")?;
    Ok(kilobytes * 1024)
}

/// Returns the number of containers that the memory of this machine carries, at most `wanted`. Tells why if it is less.
pub(super) fn carried(wanted: u16) -> Result<u16> {
    let available = available()?;
    let room = u16::try_from(available / ROOM).unwrap_or(u16::MAX);
    if room < wanted {
        note(&format!(
            "{room} containers instead of {wanted}: {} MiB of memory are available, and each container gets {} MiB",
            available >> 20,
            ROOM >> 20
        ));
    }
    Ok(wanted.min(room))
}

/// Raises the pace of registrations to its maximum, so that it bounds nothing. The default keeps below GitHub's limits.
pub(super) fn fast(config: &mut Config) {
    config.login = format!("{}\nmints_per_minute = 1000", config.login);
}

/// Returns a configuration whose pool has so many spares and nothing else, so no runner is registered.
pub(super) fn only_spares(lab: &Lab, count: u16) -> Result<Config> {
    let mut config = Config::small(lab.sim().api_url()).with("ci", |pool| {
        (pool.min_idle, pool.min_spare, pool.max_runners) = (0, count, count);
        pool.more = "demand = \"webhook\"\n".into();
    });
    config.top = hook::listen(lab)?;
    Ok(config)
}

/// Ends the daemon and all its containers at once.
pub(super) fn end_all(lab: &Lab) -> Result<()> {
    lab.stop()?;
    lab.host().run(&["systemctl", "stop", SLOT_UNITS])?;
    lab.reset()
}

/// Returns the events of the daemon's messages since a mark.
pub(super) fn events_since(lab: &Lab, mark: &Mark) -> Result<Vec<SlotEvent>> {
    let entries = journal::since(lab.host(), mark, DAEMON)?;
    Ok(timeline::of_daemon(&entries))
}
