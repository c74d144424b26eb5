//! The host as it should be once all faults have ended.

use runner_controller::config::PoolConfig;
use runner_controller::pool::SlotId;

use super::Observer;
use super::containers::{LastingUnit, Progress};

impl Observer {
    /// Returns what is not as it should be; `None` if the host is settled.
    #[must_use]
    pub(crate) fn unsettled(&self) -> Option<String> {
        if self.daemon.is_none() {
            return Some("the daemon is down".to_owned());
        }
        // A container in a slot that is no longer configured stays until its job ends.
        let beyond = |slot: &SlotId| self.config.place(slot).is_none();
        let mut beyond = self
            .containers
            .units()
            .iter()
            .filter(|(slot, _)| beyond(slot))
            .peekable();
        let pools = if beyond.peek().is_none() {
            self.unsettled_pools()
        } else {
            let idle = beyond.find(|(_, unit)| !is_ending(unit));
            idle.map(|(slot, _)| format!("{slot} has no job, and is not configured"))
        };
        pools
            .or_else(|| self.registrations.stray(&self.containers))
            .or_else(|| self.unsettled_records())
    }

    fn unsettled_pools(&self) -> Option<String> {
        let pools = &self.config.pools;
        let names: Vec<String> = pools.iter().map(|pool| pool.name.to_string()).collect();
        let waiting = self.registrations.jobs_waiting(&names);
        if waiting > 0 {
            return Some(format!("{waiting} jobs wait"));
        }
        pools.iter().find_map(|pool| self.unsettled_pool(pool))
    }

    fn unsettled_pool(&self, pool: &PoolConfig) -> Option<String> {
        let name = &pool.name;
        let (mut idle, mut spare, mut busy, mut lasting) = (0, 0, 0, 0);
        let units = self.containers.units().iter();
        for (_, unit) in units.filter(|(slot, _)| slot.pool == *name) {
            lasting += 1;
            let container = unit.container.as_ref();
            let Some(container) = container.filter(|container| !container.stopping) else {
                continue;
            };
            match container.progress {
                Progress::Listening => idle += 1,
                Progress::Asking => spare += 1,
                Progress::Working => busy += 1,
                Progress::Booting | Progress::Configured | Progress::Finished => {}
            }
        }
        let want_idle = pool
            .min_idle
            .min(pool.max_runners - busy.min(pool.max_runners));
        let room = pool.max_runners.saturating_sub(busy + want_idle);
        let want_spare = pool.min_spare.min(room);
        let good = idle == want_idle && spare == want_spare && lasting == idle + spare + busy;
        let is = format!("{name}: {idle} idle, {spare} spare, {busy} busy, {lasting} units");
        (!good).then(|| format!("{is}; wanted {want_idle} idle, {want_spare} spare"))
    }

    fn unsettled_records(&self) -> Option<String> {
        let (records, units) = (self.verdicts.records(), self.containers.units());
        for (slot, unit) in units {
            let known = records.get(slot).and_then(Option::as_ref);
            if known != Some(&unit.invocation) {
                return Some(format!("{slot} is on record as {known:?}"));
            }
        }
        let left = records.keys().find(|slot| !units.contains_key(slot));
        left.map(|slot| format!("{slot} is on record and has no container"))
    }
}

/// Returns true if the unit ends by itself, or after its job.
fn is_ending(unit: &LastingUnit) -> bool {
    let container = unit.container.as_ref();
    container.is_none_or(|container| {
        let job = matches!(container.progress, Progress::Working | Progress::Finished);
        container.stopping || job
    })
}
