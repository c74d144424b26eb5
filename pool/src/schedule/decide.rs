//! The schedule of all pools.
//!
//! The room of the host is distributed in this order: the part of each pool's `min_idle` is kept free for it; waiting
//! jobs have their turns; idle runners beside those for jobs, and then spares, get the rest.

use std::collections::{BTreeMap, BTreeSet};

use super::budget::{Budget, Cost};
use super::demand::Demand;
use super::order::millis;
use super::supply::PoolSupply;
use super::target::Target;
use crate::PoolName;
use crate::jobs::{JobKey, JobTable, TableEntry, Turn, WaitReason};

/// Maximum number of waiting jobs for which runners of other pools make room at once.
const ROOM_FOR_JOBS: usize = 8;

/// The jobs that wait, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Jobs<'t> {
    /// The jobs.
    pub table: &'t JobTable,
    /// The moment, in milliseconds since 1970, in which GitHub's queue times are.
    pub unix_ms: u64,
}

/// The schedule of all pools at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Numbers that each pool works towards.
    pub targets: BTreeMap<PoolName, Target>,
    /// Cost of all runners that exist.
    pub used: Cost,
    /// Jobs for which a runner is there or starts.
    served: BTreeSet<JobKey>,
    /// Repositories, in lower case, that have as many runners as they may.
    capped: BTreeSet<String>,
    /// Pools with jobs of such repositories.
    capped_pools: BTreeSet<PoolName>,
    /// Reason for which further jobs of a pool have no runner.
    waits: BTreeMap<PoolName, WaitReason>,
    /// Number of jobs that each pool with a scale set can have altogether, those that it has included.
    capacities: BTreeMap<PoolName, usize>,
    /// Pools whose scale sets have no room because of the budget or the turns of other jobs.
    crowded: BTreeSet<PoolName>,
    /// Pools with a probe.
    probes: BTreeSet<PoolName>,
}

impl Schedule {
    /// Returns the reason for which a waiting job has no runner that is there or starts.
    #[must_use]
    pub fn reason(&self, entry: &TableEntry) -> Option<WaitReason> {
        let job = &entry.job;
        if self.served.contains(&job.key) {
            return None;
        }
        if self
            .capped
            .contains(&job.description().repository.to_lowercase())
        {
            return Some(WaitReason::RepositoryCap);
        }
        self.waits.get(entry.place.pool()?).copied()
    }

    /// Returns the number of jobs that each pool with a scale set can have altogether, those that it has included.
    ///
    /// Pools that share a budget can each have the whole remainder, so that none waits for another one's jobs.
    #[must_use]
    pub fn capacities(&self) -> &BTreeMap<PoolName, usize> {
        &self.capacities
    }

    /// Returns true if the budget or the turns of other jobs leave a pool's scale set no room for a further job.
    pub(crate) fn is_crowded(&self, pool: &PoolName) -> bool {
        self.crowded.contains(pool)
    }

    /// Returns the pools with a runner that listens although their scale set tells of no job.
    #[must_use]
    pub fn probes(&self) -> &BTreeSet<PoolName> {
        &self.probes
    }

    /// Returns the reason for which further jobs of a pool have no runner.
    #[must_use]
    pub fn reason_of_pool(&self, pool: &PoolName) -> Option<WaitReason> {
        let is_capped = self.capped_pools.contains(pool);
        let capped = is_capped.then_some(WaitReason::RepositoryCap);
        self.waits.get(pool).copied().or(capped)
    }
}

/// One pool while the schedule is made.
struct Draft<'p> {
    supply: &'p PoolSupply,
    /// Runners without a job that no waiting job needs so far.
    left: usize,
    /// Waiting jobs that a runner has already, and whose turn did not come so far.
    taken: usize,
    /// Containers to start.
    starts: usize,
    /// Containers that may start for waiting jobs.
    room_for_jobs: usize,
    /// Waiting jobs that need a listener.
    jobs: usize,
    /// Runners without a job that make room.
    preempted: usize,
}

impl Draft<'_> {
    /// Returns the number of runners without a job, those that start included, that count for the pool's minima.
    fn warm(&self) -> usize {
        match self.supply.demand {
            Demand::Fixed => self.supply.free() + self.starts,
            Demand::Webhook | Demand::Queue | Demand::ScaleSet => self.left,
        }
    }

    fn room(&self) -> usize {
        self.supply.startable.saturating_sub(self.starts)
    }

    /// Returns the number of runners that could make room: neither a waiting job nor `min_idle` needs them.
    fn preemptible(&self) -> usize {
        let existing = self.left.min(self.supply.free());
        existing.saturating_sub(self.supply.min_idle + self.preempted)
    }

    fn target(&self) -> Target {
        let supply = self.supply;
        let jobs = match supply.demand {
            Demand::Fixed => 0,
            Demand::Webhook | Demand::Queue | Demand::ScaleSet => self.jobs,
        };
        Target {
            // By their phase, those that were told listen.
            listeners: supply.min_idle + jobs + supply.told,
            spares: supply.min_spare,
            max: supply.runners + self.starts,
            preempted: self.preempted,
        }
    }
}

/// Room of a scale set.
struct Room {
    /// Number of jobs that the pool can have altogether, as its scale set announces it.
    capacity: usize,
    /// True if the budget or the turns of other jobs leave no room for a further job.
    is_crowded: bool,
}

/// Costs of jobs whose turn came and that did not fit. They keep their turn.
#[derive(Default)]
struct Heads {
    /// Smallest amounts of each resource among them.
    least: Option<Cost>,
    /// True if one of them has waited so long that it keeps its resources, too.
    reserves: bool,
    /// Their pools, in the order of the jobs.
    pools: Vec<usize>,
}

impl Heads {
    /// Returns true if a runner with this cost may start before them.
    fn let_pass(&self, cost: Cost, budget: &Budget) -> bool {
        let is_smaller = |least| budget.is_smaller(cost, least);
        !self.reserves && self.least.is_none_or(is_smaller)
    }

    fn add(&mut self, cost: Cost, reserves: bool, pool: usize) {
        self.least = Some(self.least.map_or(cost, |least| least.min(cost)));
        self.reserves |= reserves;
        if self.pools.len() < ROOM_FOR_JOBS {
            self.pools.push(pool);
        }
    }
}

/// Makes the schedule. `jobs` has the jobs that wait; without it, pools have what their configuration says.
///
/// Deterministic: equal arguments give equal schedules. The starts of a schedule never exceed the budget.
#[must_use]
pub fn schedule(
    pools: &[PoolSupply],
    jobs: Option<&JobTable>,
    budget: &Budget,
    unix_ms: u64,
) -> Schedule {
    let costs = pools.iter().map(|pool| pool.cost.times(pool.runners));
    let mut making = Making {
        budget,
        used: costs.fold(Cost::default(), Cost::plus),
        kept_free: Cost::default(),
        drafts: pools.iter().map(draft).collect(),
        heads: Heads::default(),
        schedule: Schedule::default(),
    };
    making.schedule.used = making.used;
    making.keep_minimum();
    if let Some(table) = jobs {
        making.serve(table, unix_ms);
        making.make_room();
    }
    making.keep_warm(|draft| draft.supply.min_idle);
    making.keep_warm(|draft| draft.supply.min_idle + draft.supply.min_spare);
    if let Some(table) = jobs {
        making.announce(table);
    }
    let targets = making.drafts.iter();
    let targets = targets.map(|draft| (draft.supply.name.clone(), draft.target()));
    making.schedule.targets = targets.collect();
    making.schedule
}

fn draft(supply: &PoolSupply) -> Draft<'_> {
    let wanted = supply.min_idle + supply.min_spare;
    Draft {
        supply,
        left: supply.free(),
        taken: supply.taken,
        starts: 0,
        room_for_jobs: match supply.demand {
            // Jobs have its runners, and do not change their number.
            Demand::Fixed => wanted.saturating_sub(supply.free()),
            Demand::Webhook | Demand::Queue | Demand::ScaleSet => usize::MAX,
        },
        jobs: 0,
        preempted: 0,
    }
}

/// A schedule that is being made.
struct Making<'p> {
    budget: &'p Budget,
    /// Cost of the runners that exist or start.
    used: Cost,
    /// Cost of the runners of `min_idle` that do not exist and cannot start now.
    kept_free: Cost,
    drafts: Vec<Draft<'p>>,
    heads: Heads,
    schedule: Schedule,
}

impl Making<'_> {
    fn fits(&self, cost: Cost) -> bool {
        self.budget.allows(self.used.plus(cost))
    }

    fn start(&mut self, pool: usize) {
        if let Some(draft) = self.drafts.get_mut(pool) {
            draft.starts += 1;
            self.used = self.used.plus(draft.supply.cost);
        }
    }

    /// Starts what is missing in pools that have fewer runners than `min_idle`, those with jobs included.
    fn keep_minimum(&mut self) {
        for pool in 0..self.drafts.len() {
            let draft = &self.drafts[pool];
            let (supply, cost) = (draft.supply, draft.supply.cost);
            for _ in supply.runners..supply.min_idle {
                if self.drafts[pool].room() > 0 && self.fits(cost) {
                    self.start(pool);
                    let draft = &mut self.drafts[pool];
                    draft.left += 1;
                    draft.room_for_jobs = draft.room_for_jobs.saturating_sub(1);
                } else {
                    self.kept_free = self.kept_free.plus(cost);
                }
            }
        }
        self.used = self.used.plus(self.kept_free);
    }

    /// Lets the waiting jobs have their turns.
    fn serve(&mut self, table: &JobTable, unix_ms: u64) {
        let places = self.drafts.iter().enumerate();
        let places: BTreeMap<&PoolName, usize> = places
            .map(|(place, draft)| (&draft.supply.name, place))
            .collect();
        let rules = table.rules();
        let mut by_repository: BTreeMap<&str, usize> = BTreeMap::new();
        let mut turns = table.queue().turns(rules, unix_ms);
        while let Some(turn) = turns.pop() {
            let Some(&pool) = places.get(turn.pool) else {
                continue;
            };
            // Its pool has no room, so neither have later jobs of the pool, which cost the same.
            if self.schedule.waits.contains_key(turn.pool) {
                continue;
            }
            if let Some(max) = rules.max_per_repository {
                let repository = turn.repository();
                let running = by_repository.get(repository).copied();
                let running = running.unwrap_or_else(|| table.running_of(repository));
                if running >= max {
                    self.schedule.capped.insert(repository.to_owned());
                    self.schedule.capped_pools.insert(turn.pool.clone());
                    continue;
                }
            }
            let waited = unix_ms.saturating_sub(turn.queued_unix_ms);
            if let Some(reason) = self.turn(pool, waited >= millis(rules.reserve_after)) {
                self.schedule.waits.insert(turn.pool.clone(), reason);
                continue;
            }
            self.schedule.served.insert(turn.key.clone());
            if rules.max_per_repository.is_some() {
                count(&mut by_repository, table, &turn);
            }
            turns.goes_on(turn);
        }
        // GitHub counts them for a scale set, and no message told their age or priority. A probe comes after all jobs.
        for pool in 0..self.drafts.len() {
            let supply = self.drafts[pool].supply;
            if supply.demand != Demand::ScaleSet || self.schedule.waits.contains_key(&supply.name) {
                continue;
            }
            let untold = table.untold(&supply.name, supply.busy);
            let is_probe = untold == 0 && supply.wants_probe;
            for _ in 0..untold + usize::from(is_probe) {
                if let Some(reason) = self.turn(pool, false) {
                    self.schedule.waits.insert(supply.name.clone(), reason);
                    break;
                }
                if is_probe {
                    self.schedule.probes.insert(supply.name.clone());
                }
            }
        }
    }

    /// Finds out how many jobs each pool with a scale set can have altogether.
    fn announce(&mut self, table: &JobTable) {
        for draft in &self.drafts {
            if draft.supply.demand != Demand::ScaleSet {
                continue;
            }
            let (name, room) = (&draft.supply.name, self.room_of(draft, table));
            let capacities = &mut self.schedule.capacities;
            capacities.insert(name.clone(), room.capacity);
            if room.is_crowded {
                self.schedule.crowded.insert(name.clone());
            }
        }
    }

    /// Returns the number of jobs that a pool can have altogether: with the runners that have one or listen, and with
    /// those that can start or register now.
    fn room_of(&self, draft: &Draft<'_>, table: &JobTable) -> Room {
        let (supply, mut used, mut more) = (draft.supply, self.used, 0);
        while more < draft.room()
            && self.heads.let_pass(supply.cost, self.budget)
            && self.budget.allows(used.plus(supply.cost))
        {
            used = used.plus(supply.cost);
            more += 1;
        }
        let coming = (supply.spares + draft.starts + more).min(supply.registrable);
        let free = supply.listeners + coming;
        // A runner may be busy with a job that GitHub does not count any more, and GitHub may still count a job whose
        // runner has ended. Neither is room for another job.
        let waiting = table
            .queue()
            .of_pool(&supply.name)
            .saturating_sub(supply.taken)
            + table.untold(&supply.name, supply.busy);
        let load = table.load(&supply.name);
        let as_counted = (load + free).saturating_sub(waiting);
        let capacity = as_counted.min(supply.busy + free);
        // Jobs may wait at GitHub, and what keeps them there is other jobs alone.
        let is_crowded = more < draft.room()
            && capacity <= load
            // GitHub may count jobs whose runners have ended.
            && load < supply.max_runners
            && waiting == 0
            && supply.registrable > 0;
        Room {
            capacity: if is_crowded && supply.may_ask {
                load + 1
            } else {
                capacity
            },
            is_crowded,
        }
    }

    /// Gives a job of a pool its turn. Returns the reason if no runner is there or starts for it.
    fn turn(&mut self, pool: usize, reserves: bool) -> Option<WaitReason> {
        let draft = self.drafts.get_mut(pool)?;
        if draft.taken > 0 {
            draft.taken -= 1;
            return None;
        }
        if draft.left > 0 {
            draft.left -= 1;
            draft.jobs += 1;
            return None;
        }
        let (cost, room) = (draft.supply.cost, draft.room());
        if room == 0 || draft.room_for_jobs == 0 {
            let is_full = draft.supply.runners + draft.starts >= draft.supply.max_runners;
            return Some(if is_full {
                WaitReason::PoolFull
            } else if draft.supply.is_failing {
                WaitReason::PoolFails
            } else {
                // The pool replaces a runner with a job at once.
                WaitReason::RunnerStarting
            });
        }
        if !self.fits(cost) {
            self.heads.add(cost, reserves, pool);
            return Some(WaitReason::Budget);
        }
        if !self.heads.let_pass(cost, self.budget) {
            self.heads.add(cost, reserves, pool);
            return Some(WaitReason::Turn);
        }
        if let Some(draft) = self.drafts.get_mut(pool) {
            draft.room_for_jobs -= 1;
            draft.jobs += 1;
        }
        self.start(pool);
        None
    }

    /// Lets runners that nothing needs make room for the first jobs that do not fit.
    fn make_room(&mut self) {
        let ending = |draft: &Draft<'_>| draft.supply.cost.times(draft.supply.ending);
        let ending = self
            .drafts
            .iter()
            .map(ending)
            .fold(Cost::default(), Cost::plus);
        // Their room is free in a moment.
        let mut used = self.used.minus(ending);
        for pool in std::mem::take(&mut self.heads.pools) {
            let Some(wanted) = self.drafts.get(pool).map(|draft| draft.supply.cost) else {
                continue;
            };
            let mut freed = Vec::new();
            while !self.budget.allows(used.plus(wanted)) {
                let Some(other) = self.least_needed(pool, used, wanted) else {
                    break;
                };
                self.drafts[other].preempted += 1;
                used = used.minus(self.drafts[other].supply.cost);
                freed.push(other);
            }
            if self.budget.allows(used.plus(wanted)) {
                used = used.plus(wanted);
                continue;
            }
            // All of them together are not enough, so they stay.
            for other in freed {
                self.drafts[other].preempted -= 1;
                used = used.plus(self.drafts[other].supply.cost);
            }
            break;
        }
    }

    /// Returns the pool other than `pool` whose runners are needed least.
    fn least_needed(&self, pool: usize, used: Cost, wanted: Cost) -> Option<usize> {
        let drafts = self.drafts.iter().enumerate();
        let helpful = drafts.filter(|(other, draft)| {
            *other != pool
                && draft.preemptible() > 0
                && self.budget.relieves(draft.supply.cost, used, wanted)
        });
        let need = |draft: &Draft<'_>| {
            let spares = draft.supply.spares > draft.preempted;
            // Spares first, because GitHub has to agree to the end of an idle runner.
            (spares, draft.preemptible())
        };
        // Of equal ones the first.
        let least = helpful.rev().max_by_key(|(_, draft)| need(draft));
        least.map(|(other, _)| other)
    }

    /// Starts runners that no job waits for, up to the number that `wanted` returns.
    fn keep_warm(&mut self, wanted: impl Fn(&Draft<'_>) -> usize) {
        // The room is for jobs.
        if self.heads.least.is_some() {
            return;
        }
        for pool in 0..self.drafts.len() {
            loop {
                let draft = &self.drafts[pool];
                let is_enough = draft.warm() >= wanted(draft) || draft.room() == 0;
                if is_enough || !self.fits(draft.supply.cost) {
                    break;
                }
                self.start(pool);
                self.drafts[pool].left += 1;
            }
        }
    }
}

fn count<'q>(by_repository: &mut BTreeMap<&'q str, usize>, table: &JobTable, turn: &Turn<'q>) {
    let repository = turn.repository();
    let running = by_repository.entry(repository);
    *running.or_insert_with(|| table.running_of(repository)) += 1;
}
