//! Numbers of runners that hold at certain hours.

use std::collections::BTreeMap;

use tracing::info;

use crate::config::{PoolConfig, ScheduleEntry};
use crate::pool::{Numbers, PoolName};

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

    /// Returns the numbers of the pools with a schedule at a time in milliseconds since 1970, once in each second.
    pub(super) fn look<'a>(
        &mut self,
        pools: &'a [PoolConfig],
        unix_ms: u64,
    ) -> Vec<(&'a PoolName, Numbers)> {
        let second = unix_ms / 1000;
        if self.looked_at == Some(second) {
            return Vec::new();
        }
        self.looked_at = Some(second);
        let scheduled = pools.iter().filter(|pool| !pool.schedule.is_empty());
        scheduled
            .map(|pool| {
                let entry = pool.scheduled(unix_ms);
                let numbers = entry.map_or_else(|| pool.numbers(), ScheduleEntry::numbers);
                self.note(&pool.name, entry.map(ToString::to_string), numbers);
                (&pool.name, numbers)
            })
            .collect()
    }

    /// Notes the entry that holds for a pool, and logs a change.
    fn note(&mut self, pool: &PoolName, entry: Option<String>, numbers: Numbers) {
        if self.entries.get(pool) == entry.as_ref() {
            return;
        }
        let schedule = entry.as_deref().unwrap_or("outside of the hours");
        let (idle, spare, max) = (numbers.min_idle, numbers.min_spare, numbers.max_runners);
        info!(
            %pool,
            schedule,
            idle,
            spare,
            max,
            "pool {pool}, schedule {schedule}: {idle} idle, {spare} spare, at most {max} runners"
        );
        match entry {
            Some(entry) => self.entries.insert(pool.clone(), entry),
            None => self.entries.remove(pool),
        };
    }
}
