//! GitHub: which runner gets which job.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::config::PoolConfig;
use crate::pool::{PoolName, Slot, SlotId};

/// Jobs with the labels of one pool that wait together. Each scale set has its own.
type Queue = (Option<usize>, PoolName);

/// The queue of jobs, and the runners that wait for one.
#[derive(Debug)]
pub(super) struct GitHub {
    /// Pools whose runners can have jobs with the labels of a pool.
    able: BTreeMap<PoolName, Vec<PoolName>>,
    scale_sets: BTreeSet<PoolName>,
    waiting: BTreeMap<Queue, VecDeque<usize>>,
    /// Jobs that no scale set has, because none announced room for them.
    unassigned: BTreeMap<PoolName, VecDeque<usize>>,
    /// Number of jobs that each scale set has, those that run included.
    assigned: BTreeMap<(usize, PoolName), usize>,
    /// Runners that wait for a job, the one that waits longest first.
    idle: BTreeMap<PoolName, BTreeSet<(u64, usize, Slot)>>,
}

impl GitHub {
    pub(super) fn new(pools: &[PoolConfig]) -> Self {
        let able = |of: &PoolConfig| {
            let asked = labels(of);
            let has_all = |other: &&PoolConfig| {
                let is_self = other.name == of.name;
                let is_set = of.scale_set.is_some() || other.scale_set.is_some();
                is_self || (!is_set && other.scope == of.scope && asked.is_subset(&labels(other)))
            };
            let able = pools.iter().filter(has_all);
            able.map(|pool| pool.name.clone()).collect()
        };
        let sets = pools.iter().filter(|pool| pool.scale_set.is_some());
        Self {
            able: pools.iter().map(|p| (p.name.clone(), able(p))).collect(),
            scale_sets: sets.map(|pool| pool.name.clone()).collect(),
            waiting: BTreeMap::new(),
            unassigned: BTreeMap::new(),
            assigned: BTreeMap::new(),
            idle: BTreeMap::new(),
        }
    }

    /// Returns true if GitHub gives the jobs of a pool to scale sets.
    pub(super) fn has_scale_set(&self, pool: &PoolName) -> bool {
        self.scale_sets.contains(pool)
    }

    /// Queues a job with the labels of a pool. Returns the runner that gets it at once.
    pub(super) fn queue(&mut self, job: usize, pool: &PoolName) -> Option<(usize, SlotId)> {
        if self.has_scale_set(pool) {
            let jobs = self.unassigned.entry(pool.clone()).or_default();
            jobs.push_back(job);
            return None;
        }
        self.offer(job, (None, pool.clone()))
    }

    /// Assigns jobs to the scale set of a host with room for `capacity` jobs altogether. Returns each job, and the
    /// runner that gets it at once.
    pub(super) fn assign(
        &mut self,
        host: usize,
        pool: &PoolName,
        capacity: usize,
    ) -> Vec<(usize, Option<SlotId>)> {
        let mut given = Vec::new();
        loop {
            let assigned = self.assigned.entry((host, pool.clone())).or_default();
            if *assigned >= capacity {
                return given;
            }
            let waiting = self.unassigned.get_mut(pool);
            let Some(job) = waiting.and_then(VecDeque::pop_front) else {
                return given;
            };
            *assigned += 1;
            let runner = self.offer(job, (Some(host), pool.clone()));
            given.push((job, runner.map(|(_, slot)| slot)));
        }
    }

    /// Notes that a job has ended.
    pub(super) fn ended(&mut self, host: usize, pool: &PoolName) {
        if let Some(assigned) = self.assigned.get_mut(&(host, pool.clone())) {
            *assigned = assigned.saturating_sub(1);
        }
    }

    fn offer(&mut self, job: usize, queue: Queue) -> Option<(usize, SlotId)> {
        let pools = self.able.get(&queue.1).into_iter().flatten();
        let first = |pool: &PoolName| {
            let mut idle = self.idle.get(pool)?.iter();
            let of_host =
                |(_, host, _): &&(u64, usize, Slot)| queue.0.is_none_or(|own| own == *host);
            Some((*idle.find(of_host)?, pool.clone()))
        };
        let Some((place, pool)) = pools.filter_map(first).min() else {
            self.waiting.entry(queue).or_default().push_back(job);
            return None;
        };
        if let Some(idle) = self.idle.get_mut(&pool) {
            idle.remove(&place);
        }
        let (_, host, slot) = place;
        Some((host, SlotId { pool, slot }))
    }

    /// Lets a runner wait for a job. Returns the job that it gets at once: the one that waits longest.
    pub(super) fn online(&mut self, host: usize, slot: &SlotId, now_ms: u64) -> Option<usize> {
        let is_able = |(of, pool): &Queue| {
            let is_here = of.is_none_or(|of| of == host);
            let able = self.able.get(pool);
            is_here && able.is_some_and(|able| able.contains(&slot.pool))
        };
        let queues = self.waiting.iter_mut().filter(|(queue, _)| is_able(queue));
        // Jobs are numbered in the order in which they were queued.
        let oldest = queues.filter(|(_, jobs)| !jobs.is_empty());
        let oldest = oldest.min_by_key(|(_, jobs)| jobs.front().copied());
        if let Some(job) = oldest.and_then(|(_, jobs)| jobs.pop_front()) {
            return Some(job);
        }
        let idle = self.idle.entry(slot.pool.clone()).or_default();
        idle.insert((now_ms, host, slot.slot));
        None
    }

    /// Removes a runner.
    pub(super) fn remove(&mut self, host: usize, slot: &SlotId) {
        if let Some(idle) = self.idle.get_mut(&slot.pool) {
            idle.retain(|(_, of, number)| (*of, *number) != (host, slot.slot));
        }
    }
}

fn labels(pool: &PoolConfig) -> BTreeSet<String> {
    let labels = pool.labels.iter();
    labels.map(|label| label.to_lowercase()).collect()
}
