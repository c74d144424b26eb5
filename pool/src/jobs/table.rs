//! All jobs that are known, bounded in number and age.

use std::collections::{BTreeMap, BTreeSet};

use super::counts::subtract;
use super::job::{JobKey, JobSource, JobStage, KnownJob};
use super::matching::{PoolLabels, serving};
use super::queue::JobQueue;
use crate::schedule::OrderRules;
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
    /// A runner that is not on this host took it, or it is counted for a scale set.
    Elsewhere,
    /// No runner took it so far, a delivery or a reading told of it, and it fits this pool, which has a scale set. The
    /// messages of the set tell of it, too, so it does not count.
    ScaleSet(PoolName),
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
            Self::Elsewhere | Self::ScaleSet(_) | Self::Unserved => None,
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

/// Group of jobs that are counted and shown together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobGroup {
    /// They wait, and a pool of this host serves them.
    Waiting,
    /// They wait, and no pool of this host serves them.
    Unserved,
    /// They wait for an approval.
    Held,
    /// Runners of this host have them.
    Running,
    /// They ended, and a pool of this host served them.
    Ended,
    /// Other hosts have or had them.
    Elsewhere,
}

impl JobGroup {
    fn of(entry: &TableEntry) -> Self {
        let is_here = entry.place.pool().is_some();
        match (entry.job.stage(), &entry.place) {
            (JobStage::Held, _) => Self::Held,
            (JobStage::Queued, JobPlace::Pool(_)) => Self::Waiting,
            (JobStage::Queued, JobPlace::Unserved) => Self::Unserved,
            (JobStage::Running, JobPlace::Slot(_)) => Self::Running,
            (JobStage::Ended, _) if is_here => Self::Ended,
            (JobStage::Queued | JobStage::Running | JobStage::Ended, _) => Self::Elsewhere,
        }
    }
}

/// The jobs that are known.
///
/// Every count and order that a decision or the status needs changes with the job that an event is about, so no
/// event costs a pass over the table.
#[derive(Debug, Clone)]
pub struct JobTable {
    host: HostId,
    pools: Vec<PoolLabels>,
    rules: OrderRules,
    entries: BTreeMap<JobKey, TableEntry>,
    /// Keys of the jobs of each group, by the time at which they were queued or ended.
    groups: BTreeMap<JobGroup, BTreeSet<(u64, JobKey)>>,
    queue: JobQueue,
    /// Number of running jobs of each pool.
    running: BTreeMap<PoolName, usize>,
    /// Number of running jobs of each repository, in lower case, that runners of this host have.
    repositories: BTreeMap<String, usize>,
    /// Number of jobs that name each runner of this host.
    runners: BTreeMap<String, usize>,
    /// Number of waiting jobs that fit the pool of each scale set, by deliveries and readings.
    beside_sets: BTreeMap<PoolName, usize>,
    /// Number of jobs that GitHub counts as assigned to the scale set of each pool, those that run included.
    assigned: BTreeMap<PoolName, usize>,
}

impl JobTable {
    /// Returns an empty table for the pools of a host, in their order. `rules` order the jobs that wait.
    #[must_use]
    pub fn new(host: HostId, pools: Vec<PoolLabels>, rules: OrderRules) -> Self {
        Self {
            host,
            pools,
            rules,
            entries: BTreeMap::new(),
            groups: BTreeMap::new(),
            queue: JobQueue::default(),
            running: BTreeMap::new(),
            repositories: BTreeMap::new(),
            runners: BTreeMap::new(),
            beside_sets: BTreeMap::new(),
            assigned: BTreeMap::new(),
        }
    }

    /// Sets the number of jobs that GitHub counts as assigned to a pool's scale set, those that run included.
    pub fn set_assigned(&mut self, pool: PoolName, jobs: usize) {
        self.assigned.insert(pool, jobs);
    }

    /// Returns the number of jobs of a pool's scale set, waiting and running: as GitHub counts them or as its messages
    /// told, whichever is larger. Statistics without the jobs of their own message were seen, and messages get lost.
    pub(crate) fn load(&self, pool: &PoolName) -> usize {
        let told = self.queue.of_pool(pool) + self.running.get(pool).copied().unwrap_or_default();
        self.assigned
            .get(pool)
            .map_or(told, |assigned| told.max(*assigned))
    }

    /// Returns the number of jobs that wait for a runner of the pool and that no message told of. `busy` runners of the
    /// pool have a job.
    pub(crate) fn untold(&self, pool: &PoolName, busy: usize) -> usize {
        let running = self.running.get(pool).copied().unwrap_or_default();
        let assigned = self.assigned.get(pool).copied().unwrap_or_default();
        assigned.saturating_sub(self.queue.of_pool(pool) + running.max(busy))
    }

    /// Returns true if GitHub and the messages of a pool's scale set tell of no job, and a job that fits the pool waits.
    pub(crate) fn is_silent(&self, pool: &PoolName) -> bool {
        self.assigned.get(pool) == Some(&0)
            && self.load(pool) == 0
            && self.beside_sets.contains_key(pool)
    }

    /// Merges a job. Returns its entry before, if it was known, and its entry now.
    pub fn merge(&mut self, job: KnownJob) -> (Option<TableEntry>, &TableEntry) {
        let key = job.key.clone();
        let before = self.remove(&key);
        let known = before.as_ref().map(|entry| entry.job.clone());
        let job = match known {
            Some(known) => known.merge(job),
            None => job,
        };
        let place = self.place(&job);
        let entry = TableEntry { job, place };
        self.index(&entry);
        let entry = self.entries.entry(key).or_insert(entry);
        (before, entry)
    }

    fn remove(&mut self, key: &JobKey) -> Option<TableEntry> {
        let entry = self.entries.remove(key)?;
        self.unindex(&entry);
        Some(entry)
    }

    fn index(&mut self, entry: &TableEntry) {
        let (job, group) = (&entry.job, JobGroup::of(entry));
        let at = (sort_key(job), job.key.clone());
        self.groups.entry(group).or_default().insert(at);
        if let (JobPlace::Pool(pool), JobGroup::Waiting) = (&entry.place, group) {
            self.queue.insert(pool, job, &self.rules);
        }
        if let (JobPlace::ScaleSet(pool), JobStage::Queued) = (&entry.place, job.stage()) {
            *self.beside_sets.entry(pool.clone()).or_default() += 1;
        }
        let JobPlace::Slot(slot) = &entry.place else {
            return;
        };
        if group == JobGroup::Running {
            *self.running.entry(slot.pool.clone()).or_default() += 1;
            let repository = job.description().repository.to_lowercase();
            *self.repositories.entry(repository).or_default() += 1;
        }
        if let Some(runner) = job.runner() {
            *self.runners.entry(runner.to_owned()).or_default() += 1;
        }
    }

    fn unindex(&mut self, entry: &TableEntry) {
        let (job, group) = (&entry.job, JobGroup::of(entry));
        if let Some(keys) = self.groups.get_mut(&group) {
            keys.remove(&(sort_key(job), job.key.clone()));
        }
        if let (JobPlace::Pool(pool), JobGroup::Waiting) = (&entry.place, group) {
            self.queue.remove(pool, job, &self.rules);
        }
        if let (JobPlace::ScaleSet(pool), JobStage::Queued) = (&entry.place, job.stage()) {
            subtract(&mut self.beside_sets, pool);
        }
        let JobPlace::Slot(slot) = &entry.place else {
            return;
        };
        if group == JobGroup::Running {
            subtract(&mut self.running, &slot.pool);
            subtract(
                &mut self.repositories,
                &job.description().repository.to_lowercase(),
            );
        }
        if let Some(runner) = job.runner() {
            subtract(&mut self.runners, runner);
        }
    }

    /// Returns the rules of the order.
    #[must_use]
    pub fn rules(&self) -> &OrderRules {
        &self.rules
    }

    /// Returns the jobs that wait and that a pool serves.
    pub(crate) fn queue(&self) -> &JobQueue {
        &self.queue
    }

    /// Returns the number of running jobs of a repository, in lower case, that runners of this host have.
    pub(crate) fn running_of(&self, repository: &str) -> usize {
        self.repositories
            .get(repository)
            .copied()
            .unwrap_or_default()
    }

    /// Returns true if an event told that the runner with this name took a job.
    pub(crate) fn names_runner(&self, name: &str) -> bool {
        self.runners.contains_key(name)
    }

    fn place(&self, job: &KnownJob) -> JobPlace {
        // A job that a delivery told of and that a scale set has would count twice.
        let is_told = job.key.source == JobSource::ScaleSet;
        let counts = |pool: &PoolName| is_told == self.has_scale_set(pool);
        if let Some(runner) = job.runner() {
            let own = RunnerName::parse(&self.host, runner).map(|name| name.slot);
            return match own {
                Some(slot) if is_told || counts(&slot.pool) => JobPlace::Slot(slot),
                Some(_) | None => JobPlace::Elsewhere,
            };
        }
        if let Some(pool) = &job.pool {
            // Without the set, GitHub assigns the job to another one.
            return if counts(pool) {
                JobPlace::Pool(pool.clone())
            } else {
                JobPlace::Elsewhere
            };
        }
        match serving(&self.pools, job) {
            Some(pool) if counts(pool) => JobPlace::Pool(pool.clone()),
            Some(pool) if self.has_scale_set(pool) => JobPlace::ScaleSet(pool.clone()),
            Some(_) => JobPlace::Elsewhere,
            None => JobPlace::Unserved,
        }
    }

    fn has_scale_set(&self, pool: &PoolName) -> bool {
        let mut pools = self.pools.iter();
        pools.any(|labels| labels.pool == *pool && labels.has_scale_set)
    }

    /// Removes the jobs that cannot be in GitHub's queue any more, and those beyond the bounds. Returns their
    /// keys.
    pub fn prune(&mut self, unix_ms: u64) -> Vec<JobKey> {
        let is_gone = |entry: &&TableEntry| entry.job.leaves_unix_ms() < unix_ms;
        let gone = self.entries.values().filter(is_gone);
        let mut gone: Vec<JobKey> = gone.map(|entry| entry.job.key.clone()).collect();
        for key in &gone {
            self.remove(key);
        }
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
            self.remove(key);
        }
        gone.extend(beyond);
        gone
    }

    /// Returns true if [`JobTable::prune`] has something to remove, whatever the time.
    #[must_use]
    pub fn is_over_full(&self) -> bool {
        self.entries.len() > MAX_LIVE_JOBS + MAX_ENDED_JOBS
    }

    /// Returns the jobs of a group, the one that was queued or ended first at the beginning.
    #[must_use]
    pub fn in_group(&self, group: JobGroup) -> impl DoubleEndedIterator<Item = &TableEntry> {
        let keys = self.groups.get(&group).into_iter().flatten();
        keys.filter_map(|(_, key)| self.entries.get(key))
    }

    /// Returns the number of jobs of a group.
    #[must_use]
    pub fn count(&self, group: JobGroup) -> usize {
        self.groups.get(&group).map_or(0, BTreeSet::len)
    }

    /// Returns the demand for each pool that has any, and under `None` the jobs that wait and that no pool serves.
    #[must_use]
    pub fn demand(&self) -> BTreeMap<Option<PoolName>, PoolDemand> {
        let mut demand = BTreeMap::<_, PoolDemand>::new();
        for (pool, waiting, oldest) in self.queue.oldest() {
            let of_pool = demand.entry(Some(pool.clone())).or_default();
            of_pool.waiting = waiting as u64;
            of_pool.oldest_unix_ms = Some(oldest);
        }
        for (pool, running) in &self.running {
            demand.entry(Some(pool.clone())).or_default().running = *running as u64;
        }
        if let Some(oldest) = self.in_group(JobGroup::Unserved).next() {
            let unserved = PoolDemand {
                waiting: self.count(JobGroup::Unserved) as u64,
                running: 0,
                oldest_unix_ms: Some(oldest.job.queued_unix_ms),
            };
            demand.insert(None, unserved);
        }
        demand
    }
}

fn sort_key(job: &KnownJob) -> u64 {
    job.end.map_or(job.queued_unix_ms, |end| end.unix_ms)
}
