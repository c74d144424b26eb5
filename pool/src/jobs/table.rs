//! All jobs that are known, bounded in number and age.

use std::collections::BTreeMap;

use super::job::{JobKey, JobStage, KnownJob};
use super::matching::{PoolLabels, serving};
use crate::{HostId, PoolName, RunnerName, SlotId};

/// Maximum number of jobs that have not ended. The newest ones beyond it are not kept.
pub const MAX_LIVE_JOBS: usize = 10_000;
/// Maximum number of jobs that ended. The oldest ones beyond it are not kept.
pub const MAX_ENDED_JOBS: usize = 2_000;

/// Place of a job on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobPlace {
    /// The runner in this slot took it.
    Slot(SlotId),
    /// A runner that is not on this host took it.
    Elsewhere,
    /// No runner took it so far, and this pool serves it.
    Pool(PoolName),
    /// No runner took it so far, and no pool of this host serves it.
    Unserved,
}

impl JobPlace {
    /// Returns its pool on this host.
    #[must_use]
    pub fn pool(&self) -> Option<&PoolName> {
        match self {
            Self::Slot(slot) => Some(&slot.pool),
            Self::Pool(pool) => Some(pool),
            Self::Elsewhere | Self::Unserved => None,
        }
    }
}

/// A job and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// The job.
    pub job: KnownJob,
    /// Its place.
    pub place: JobPlace,
}

/// Demand for runners of one pool, or for those that no pool has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolDemand {
    /// Number of jobs that wait for a runner.
    pub waiting: u64,
    /// Number of jobs that its runners have.
    pub running: u64,
    /// Queue time of the job that waits longest, in milliseconds since 1970.
    pub oldest_unix_ms: Option<u64>,
}

/// The jobs that are known.
#[derive(Debug, Clone)]
pub struct JobTable {
    host: HostId,
    pools: Vec<PoolLabels>,
    entries: BTreeMap<JobKey, TableEntry>,
}

impl JobTable {
    /// Returns an empty table for the pools of a host, in their order.
    #[must_use]
    pub fn new(host: HostId, pools: Vec<PoolLabels>) -> Self {
        Self {
            host,
            pools,
            entries: BTreeMap::new(),
        }
    }

    /// Merges a job. Returns its entry before, if it was known, and its entry now.
    pub fn merge(&mut self, job: KnownJob) -> (Option<TableEntry>, &TableEntry) {
        let key = job.key.clone();
        let before = self.entries.remove(&key);
        let known = before.as_ref().map(|entry| entry.job.clone());
        let job = match known {
            Some(known) => known.merge(job),
            None => job,
        };
        let place = self.place(&job);
        let entry = self.entries.entry(key);
        let entry = entry.or_insert(TableEntry { job, place });
        (before, entry)
    }

    fn place(&self, job: &KnownJob) -> JobPlace {
        if let Some(runner) = job.runner() {
            let own = RunnerName::parse(&self.host, runner);
            return own.map_or(JobPlace::Elsewhere, |name| JobPlace::Slot(name.slot));
        }
        match serving(&self.pools, job) {
            Some(pool) => JobPlace::Pool(pool.clone()),
            None => JobPlace::Unserved,
        }
    }

    /// Removes the jobs that cannot be in GitHub's queue any more, and those beyond the bounds. Returns their
    /// keys.
    pub fn prune(&mut self, unix_ms: u64) -> Vec<JobKey> {
        let is_gone = |entry: &TableEntry| entry.job.leaves_unix_ms() < unix_ms;
        let gone = self.entries.extract_if(.., |_, entry| is_gone(entry));
        let mut gone: Vec<JobKey> = gone.map(|(key, _)| key).collect();
        let (mut ended, mut live) = (Vec::new(), Vec::new());
        for (key, entry) in &self.entries {
            match entry.job.end {
                Some(end) => ended.push((end.unix_ms, key)),
                None => live.push((entry.job.queued_unix_ms, key)),
            }
        }
        ended.sort_unstable();
        live.sort_unstable();
        let old = &ended[..ended.len().saturating_sub(MAX_ENDED_JOBS)];
        let new = &live[live.len().min(MAX_LIVE_JOBS)..];
        let beyond: Vec<JobKey> = old
            .iter()
            .chain(new)
            .map(|(_, key)| (*key).clone())
            .collect();
        for key in &beyond {
            self.entries.remove(key);
        }
        gone.extend(beyond);
        gone
    }

    /// Returns true if [`JobTable::prune`] has something to remove, whatever the time.
    #[must_use]
    pub fn is_over_full(&self) -> bool {
        self.entries.len() > MAX_LIVE_JOBS + MAX_ENDED_JOBS
    }

    /// Returns the jobs in a stage, the one that was queued first at the beginning.
    #[must_use]
    pub fn in_stage(&self, stage: JobStage) -> Vec<&TableEntry> {
        let entries = self.entries.values();
        let mut found: Vec<_> = entries.filter(|entry| entry.job.stage() == stage).collect();
        found.sort_by_key(|entry| (entry.job.queued_unix_ms, &entry.job.key));
        found
    }

    /// Returns the demand for each pool that has any, and under `None` the jobs that wait and that no pool serves.
    #[must_use]
    pub fn demand(&self) -> BTreeMap<Option<PoolName>, PoolDemand> {
        let mut demand = BTreeMap::<_, PoolDemand>::new();
        for TableEntry { job, place } in self.entries.values() {
            match (job.stage(), place) {
                (JobStage::Queued, JobPlace::Pool(_) | JobPlace::Unserved) => {
                    let of_pool = demand.entry(place.pool().cloned()).or_default();
                    of_pool.waiting += 1;
                    let oldest = of_pool.oldest_unix_ms.into_iter();
                    of_pool.oldest_unix_ms = oldest.chain([job.queued_unix_ms]).min();
                }
                (JobStage::Running, JobPlace::Slot(slot)) => {
                    let of_pool = demand.entry(Some(slot.pool.clone())).or_default();
                    of_pool.running += 1;
                }
                (
                    JobStage::Held | JobStage::Queued | JobStage::Running | JobStage::Ended,
                    JobPlace::Slot(_)
                    | JobPlace::Elsewhere
                    | JobPlace::Pool(_)
                    | JobPlace::Unserved,
                ) => {}
            }
        }
        demand
    }
}
