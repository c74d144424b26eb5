//! The queue: the waiting jobs that a pool serves, in lanes within which the order never changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::counts::subtract;
use super::job::{JobKey, KnownJob};
use crate::PoolName;
use crate::schedule::{OrderRules, Rank};

/// Jobs of a pool with the same priority and repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Lane {
    priority: usize,
    /// The repository, in lower case.
    repository: String,
}

type Jobs = BTreeSet<(u64, JobKey)>;

/// The waiting jobs that a pool serves.
///
/// A job's place in the order changes with time, but never within a lane. So a pass looks at the first job of each
/// lane, and at the next one only after the first had its turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JobQueue {
    lanes: BTreeMap<PoolName, BTreeMap<Lane, Jobs>>,
    /// Number of jobs of each run, by pool.
    runs: BTreeMap<u64, BTreeMap<PoolName, usize>>,
    /// Number of jobs of each pool.
    counts: BTreeMap<PoolName, usize>,
}

/// A waiting job whose turn it is.
#[derive(Debug, Clone)]
pub(crate) struct Turn<'q> {
    rank: Rank,
    pub(crate) key: &'q JobKey,
    pub(crate) queued_unix_ms: u64,
    pub(crate) pool: &'q PoolName,
    lane: &'q Lane,
    rest: std::collections::btree_set::Iter<'q, (u64, JobKey)>,
}

impl<'q> Turn<'q> {
    /// Returns the repository of the job, in lower case.
    pub(crate) fn repository(&self) -> &'q str {
        &self.lane.repository
    }

    fn place(&self) -> (Rank, &JobKey) {
        (self.rank, self.key)
    }
}

impl PartialEq for Turn<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}
impl Eq for Turn<'_> {}
impl PartialOrd for Turn<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Turn<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

/// The waiting jobs in their order.
pub(crate) struct Turns<'q> {
    rules: &'q OrderRules,
    unix_ms: u64,
    heads: BinaryHeap<Reverse<Turn<'q>>>,
}

impl<'q> Turns<'q> {
    /// Returns the job whose turn it is. The next one of its lane follows after [`Turns::goes_on`].
    pub(crate) fn pop(&mut self) -> Option<Turn<'q>> {
        self.heads.pop().map(|Reverse(turn)| turn)
    }

    /// Lets the next job of the same lane have its turn.
    pub(crate) fn goes_on(&mut self, turn: Turn<'q>) {
        let next = turn_of(self.rules, self.unix_ms, turn.pool, turn.lane, turn.rest);
        self.heads.extend(next.map(Reverse));
    }
}

fn turn_of<'q>(
    rules: &OrderRules,
    unix_ms: u64,
    pool: &'q PoolName,
    lane: &'q Lane,
    mut jobs: std::collections::btree_set::Iter<'q, (u64, JobKey)>,
) -> Option<Turn<'q>> {
    let (queued_unix_ms, key) = jobs.next()?;
    Some(Turn {
        rank: rules.rank(lane.priority, *queued_unix_ms, unix_ms),
        key,
        queued_unix_ms: *queued_unix_ms,
        pool,
        lane,
        rest: jobs,
    })
}

impl JobQueue {
    /// Adds a waiting job.
    pub(super) fn insert(&mut self, pool: &PoolName, job: &KnownJob, rules: &OrderRules) {
        let lanes = self.lanes.entry(pool.clone()).or_default();
        let lane = lanes.entry(lane(job, rules)).or_default();
        if !lane.insert((job.queued_unix_ms, job.key.clone())) {
            return;
        }
        let run = self.runs.entry(job.description().run_id).or_default();
        *run.entry(pool.clone()).or_default() += 1;
        *self.counts.entry(pool.clone()).or_default() += 1;
    }

    /// Removes a job as it was inserted.
    pub(super) fn remove(&mut self, pool: &PoolName, job: &KnownJob, rules: &OrderRules) {
        let Some(lanes) = self.lanes.get_mut(pool) else {
            return;
        };
        let lane = lane(job, rules);
        let Some(jobs) = lanes.get_mut(&lane) else {
            return;
        };
        if !jobs.remove(&(job.queued_unix_ms, job.key.clone())) {
            return;
        }
        if jobs.is_empty() {
            lanes.remove(&lane);
        }
        if lanes.is_empty() {
            self.lanes.remove(pool);
        }
        let run = job.description().run_id;
        if let Some(pools) = self.runs.get_mut(&run) {
            subtract(pools, pool);
            if pools.is_empty() {
                self.runs.remove(&run);
            }
        }
        subtract(&mut self.counts, pool);
    }

    /// Returns true if no job waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Returns the number of jobs of a pool.
    pub(crate) fn of_pool(&self, pool: &PoolName) -> usize {
        self.counts.get(pool).copied().unwrap_or_default()
    }

    /// Returns the number of jobs of a run that a pool serves.
    pub(crate) fn of_run(&self, run: u64, pool: &PoolName) -> usize {
        let pools = self.runs.get(&run);
        let count = pools.and_then(|pools| pools.get(pool));
        count.copied().unwrap_or_default()
    }

    /// Returns the pools that serve waiting jobs of a run.
    pub(crate) fn pools_of_run(&self, run: u64) -> impl Iterator<Item = &PoolName> {
        self.runs.get(&run).into_iter().flat_map(BTreeMap::keys)
    }

    /// Returns the pools that serve waiting jobs, each with the queue time of the job that waits longest.
    pub(super) fn oldest(&self) -> impl Iterator<Item = (&PoolName, usize, u64)> {
        self.lanes.iter().map(|(pool, lanes)| {
            let first = lanes.values().filter_map(|jobs| jobs.first());
            let oldest = first.map(|(queued_unix_ms, _)| *queued_unix_ms).min();
            (pool, self.of_pool(pool), oldest.unwrap_or_default())
        })
    }

    /// Returns the jobs in their order.
    pub(crate) fn turns<'q>(&'q self, rules: &'q OrderRules, unix_ms: u64) -> Turns<'q> {
        let lanes = self.lanes.iter();
        let lanes = lanes.flat_map(|(pool, lanes)| {
            let lanes = lanes.iter();
            lanes.map(move |(lane, jobs)| (pool, lane, jobs))
        });
        let heads = lanes.filter_map(|(pool, lane, jobs)| {
            turn_of(rules, unix_ms, pool, lane, jobs.iter()).map(Reverse)
        });
        Turns {
            rules,
            unix_ms,
            heads: heads.collect(),
        }
    }
}

fn lane(job: &KnownJob, rules: &OrderRules) -> Lane {
    let description = job.description();
    Lane {
        priority: rules.priority(description),
        repository: description.repository.to_lowercase(),
    }
}
