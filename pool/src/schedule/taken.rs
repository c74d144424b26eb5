//! The waiting jobs that runners of this host have already, and the listeners that have a job already.
//!
//! The job-started hook tells at once that a runner is busy, and GitHub's delivery tells seconds or minutes later
//! which job it has. A short job has ended by then. Without this join, the host would start another runner for that job
//! in between.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::Jobs;
use super::order::millis;
use crate::jobs::{JobGroup, JobQueue, JobTable, KnownJob};
use crate::runner::{Phase, Runner};
use crate::state::JOIN_TIME;
use crate::{Pool, PoolName, Timestamp};

/// Returns the number of waiting jobs of each pool that a runner has already.
///
/// A runner without the id of a run counts for a job of the same pool. GitHub may give a job to a runner of another
/// pool than the one that this host counts it for.
pub(crate) fn taken<'p>(
    pools: impl Iterator<Item = &'p Pool>,
    table: &JobTable,
    now: Timestamp,
) -> BTreeMap<PoolName, usize> {
    let mut taken = BTreeMap::new();
    if table.queue().is_empty() {
        return taken;
    }
    let mut left: BTreeMap<(Option<u64>, PoolName), usize> = BTreeMap::new();
    let mut take = |run: Option<u64>, pool: &PoolName, queue: &JobQueue| -> bool {
        let key = (run, pool.clone());
        let left = left.entry(key).or_insert_with(|| match run {
            Some(run) => queue.of_run(run, pool),
            None => queue.of_pool(pool),
        });
        let is_left = *left > 0;
        *left -= usize::from(is_left);
        is_left
    };
    for pool in pools {
        let name = &pool.spec.name;
        let busy = pool.runners.values();
        let busy = busy.filter(|runner| runner.phase == Phase::Busy);
        for runner in busy.chain(&pool.done) {
            if !is_unknown(runner, table, now) {
                continue;
            }
            let run = runner
                .job
                .as_ref()
                .and_then(|job| job.note.run_id.parse().ok());
            let queue = table.queue();
            let others = run.into_iter().flat_map(|run| queue.pools_of_run(run));
            let mut pools = std::iter::once(name).chain(others);
            if let Some(found) = pools.find(|pool| take(run, pool, queue)) {
                *taken.entry(found.clone()).or_default() += 1;
            }
        }
    }
    taken
}

/// Returns the names of the runners of this host that took a job a short time ago, as events told.
pub(crate) fn named(jobs: Jobs<'_>) -> BTreeSet<&str> {
    let is_new = |job: &KnownJob| {
        let started = job.started_unix_ms.unwrap_or(jobs.unix_ms);
        jobs.unix_ms.saturating_sub(started) < millis(JOIN_TIME)
    };
    let running = jobs.table.in_group(JobGroup::Running);
    let new = running.map(|entry| &entry.job).filter(|job| is_new(job));
    new.filter_map(KnownJob::runner).collect()
}

/// Returns the number of runners of a pool that listen by their phase, and are named as having a job. Their job-started
/// hooks come later. A runner that is still idle after [`JOIN_TIME`] did not get the job.
pub(crate) fn told(pool: &Pool, named: &BTreeSet<&str>) -> usize {
    if named.is_empty() {
        return 0;
    }
    let listens = |runner: &&Runner| match runner.phase {
        Phase::Registering | Phase::Idle => pool.serves(runner),
        Phase::Booting | Phase::Spare | Phase::Minting | Phase::Busy | Phase::Retiring { .. } => {
            false
        }
    };
    let is_named = |runner: &&Runner| {
        let name = runner.name();
        name.is_some_and(|name| named.contains(name.to_string().as_str()))
    };
    let listening = pool.runners.values().filter(listens);
    listening.filter(is_named).count()
}

/// Returns true if the runner got a job a short time ago, and no event named the runner so far.
fn is_unknown(runner: &Runner, table: &JobTable, now: Timestamp) -> bool {
    now.since(runner.since) < JOIN_TIME
        && runner
            .name()
            .is_none_or(|name| !table.names_runner(&name.to_string()))
}
