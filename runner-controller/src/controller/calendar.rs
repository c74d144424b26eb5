//! Numbers of runners that hold at certain hours.

use std::collections::BTreeMap;

use tracing::info;

use super::Controller;
use crate::pool::PoolName;
use crate::world::{Handshake, Machines, Records, Registry};

/// The entries of schedules that hold.
#[derive(Debug, Default)]
pub(super) struct Calendar {
    /// Second since 1970 in which the schedules were looked at.
    looked_at: Option<u64>,
    entries: BTreeMap<PoolName, String>,
}

impl Calendar {
    /// Returns the entry that holds for a pool, in words.
    pub(super) fn entry(&self, pool: &PoolName) -> Option<String> {
        self.entries.get(pool).cloned()
    }
}

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    /// Gives each pool the numbers that its schedule has for a time, in milliseconds since 1970.
    pub(super) fn follow_schedules(&mut self, unix_ms: u64) {
        let second = unix_ms / 1000;
        if self.calendar.looked_at == Some(second) {
            return;
        }
        self.calendar.looked_at = Some(second);
        let config = &self.config;
        for pool in config.pools.iter().filter(|pool| !pool.schedule.is_empty()) {
            let entry = pool.scheduled(unix_ms);
            let numbers = entry.map_or_else(|| pool.numbers(), |entry| entry.numbers());
            self.pools.set_numbers(&pool.name, numbers);
            let entry = entry.map(ToString::to_string);
            if self.calendar.entries.get(&pool.name) == entry.as_ref() {
                continue;
            }
            let name = &pool.name;
            let when = entry.as_deref().unwrap_or("outside of the hours");
            let (idle, spare, max) = (numbers.min_idle, numbers.min_spare, numbers.max_runners);
            info!(pool = %name, schedule = when, idle, spare, max,
                "pool {name}, schedule {when}: {idle} idle, {spare} spare, at most {max} runners");
            match entry {
                Some(entry) => self.calendar.entries.insert(name.clone(), entry),
                None => self.calendar.entries.remove(name),
            };
        }
    }
}
