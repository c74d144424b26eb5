//! The schedule of a host, and the targets of its pools.

use super::budget::Cost;
use super::decide::{Jobs, Schedule, schedule};
use super::demand::Demand;
use super::probe::Silence;
use super::supply::PoolSupply;
use super::taken::{named, taken, told};
use crate::{Pool, PoolName, Pools, Timestamp};

impl Pools {
    /// Returns the schedule as the last plan made it.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Makes the schedule, and sets the targets of the pools.
    ///
    /// Without a budget, a pool with a fixed demand always works towards the numbers of its configuration.
    pub(crate) fn make_schedule(&mut self, jobs: Option<Jobs<'_>>, now: Timestamp) {
        let follows_jobs = |pool: &Pool| pool.spec.demand.follows_jobs();
        let is_unlimited = self.budget.is_unlimited();
        self.follow_sets(jobs, now);
        self.schedule = self.schedule_now(jobs, now);
        for (name, target) in &self.schedule.targets {
            let Some(pool) = self.by_name.get_mut(name) else {
                continue;
            };
            if follows_jobs(pool) || !is_unlimited {
                let free = PoolSupply::of(pool, 0, 0, Cost::default(), now).free();
                pool.set_target(*target, free, now);
            }
        }
    }

    /// Remembers since when the scale sets of pools tell of no job although one waits, and since when they have no room.
    fn follow_sets(&mut self, jobs: Option<Jobs<'_>>, now: Timestamp) {
        for (name, pool) in &mut self.by_name {
            if pool.spec.demand != Demand::ScaleSet {
                continue;
            }
            let has_room = self.schedule.capacities().get(name) > Some(&0);
            let is_silent = has_room && jobs.is_some_and(|jobs| jobs.table.is_silent(name));
            pool.silence = Silence::follow(pool.silence, is_silent, now);
            let is_crowded = jobs.is_some() && self.schedule.is_crowded(name);
            pool.crowded_since = is_crowded.then(|| pool.crowded_since.unwrap_or(now));
        }
    }

    /// Returns the schedule of what the pools have now.
    fn schedule_now(&self, jobs: Option<Jobs<'_>>, now: Timestamp) -> Schedule {
        let taken = jobs.map(|jobs| taken(self.by_name.values(), jobs.table, now));
        let taken = taken.unwrap_or_default();
        let named = jobs.map(named).unwrap_or_default();
        let of = |name: &PoolName| taken.get(name).copied().unwrap_or_default();
        let costs = self.by_name.values().filter_map(|pool| pool.spec.cost);
        let largest = costs.fold(Cost::default(), Cost::max);
        let pools = self.by_name.iter();
        let pools: Vec<PoolSupply> = pools
            .map(|(name, pool)| {
                let quota = self.mint_quota(pool, now);
                let mut supply = PoolSupply::of(pool, of(name), quota, largest, now);
                // Jobs that wait at GitHub have no age here, so no order has a place for them. One that is assigned has.
                let patience = jobs.map(|jobs| jobs.table.rules().fairness_age);
                let since = pool.crowded_since.zip(patience);
                supply.may_ask = since.is_some_and(|(since, patience)| now >= since + patience);
                if pool.spec.demand.follows_jobs() {
                    supply.with_told(told(pool, &named))
                } else {
                    supply
                }
            })
            .collect();
        let table = jobs.map(|jobs| jobs.table);
        let unix_ms = jobs.map_or(0, |jobs| jobs.unix_ms);
        schedule(&pools, table, &self.budget, unix_ms)
    }
}
