//! The number of runners for which jobs wait no longer than a target.

use std::time::Duration;

use super::arrivals::Arrivals;
use super::outcome::PoolOutcome;
use super::play::play;
use super::setup::Setup;
use super::times::{Samples, Times};
use crate::pool::{Numbers, PoolName, Slot};

/// Numbers of a pool for which 95 % of its jobs wait no longer than a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Needed {
    /// The numbers.
    pub numbers: Numbers,
    /// The outcome for the pool.
    pub outcome: PoolOutcome,
}

/// Returns the smallest `max_runners` of a pool for which 95 % of its jobs wait no longer than `target`, on each host.
/// If no number is enough, `min_idle` is raised, too. Returns `None` if that does not help either.
///
/// The budget does not hold, because it would hide the number that the jobs need.
#[must_use]
pub fn needed(
    setup: &Setup<'_>,
    arrivals: &Arrivals,
    times: &Times,
    pool: &PoolName,
    target: Duration,
) -> Option<Needed> {
    let numbers = setup.config.pool(pool)?.numbers();
    let most = most_at_once(arrivals, times, pool);
    let search = Search {
        setup,
        arrivals,
        times,
        pool,
        target_ms: target.as_millis(),
    };
    let idle = usize::from(numbers.min_idle);
    let now = usize::from(numbers.max_runners);
    let enough = most.max(now);
    if let Some(found) = search.least(now, enough, |runners| limited(numbers, runners, idle)) {
        return Some(found);
    }
    // Runners are there in time only if they wait before the jobs come.
    let raised = search.least(idle.max(1), enough, |idle| {
        limited(numbers, 2 * enough, idle)
    })?;
    let idle = usize::from(raised.numbers.min_idle);
    let found = search.least(now.max(idle), 2 * enough, |runners| {
        limited(numbers, runners, idle)
    });
    Some(found.unwrap_or(raised))
}

/// Returns the largest number of runners of a pool that jobs would have at once if each found a runner. A runner counts
/// until another one is there in its place.
fn most_at_once(arrivals: &Arrivals, times: &Times, pool: &PoolName) -> usize {
    let steps = [
        &times.boot,
        &times.register,
        &times.start_job,
        &times.remove,
    ];
    let beside_ms: u64 = steps.into_iter().map(Samples::median_ms).sum();
    let mut changes = Vec::new();
    for job in arrivals.jobs.iter().filter(|job| job.pool == *pool) {
        changes.push((job.at_ms, 1));
        changes.push((job.at_ms + job.duration_ms + beside_ms, -1));
    }
    changes.sort_unstable();
    let (mut now, mut most) = (0_i64, 0);
    for (_, change) in changes {
        now += change;
        most = most.max(now);
    }
    usize::try_from(most).unwrap_or_default().max(1)
}

/// Returns the numbers with this maximum and this number of idle runners, as far as the maximum has room.
fn limited(numbers: Numbers, max_runners: usize, min_idle: usize) -> Numbers {
    let max_runners = u16::try_from(max_runners).unwrap_or(Slot::MAX);
    let min_idle = u16::try_from(min_idle)
        .unwrap_or(Slot::MAX)
        .min(max_runners);
    Numbers {
        min_idle,
        min_spare: numbers.min_spare.min(max_runners - min_idle),
        max_runners,
    }
}

struct Search<'s> {
    setup: &'s Setup<'s>,
    arrivals: &'s Arrivals,
    times: &'s Times,
    pool: &'s PoolName,
    target_ms: u128,
}

impl Search<'_> {
    /// Returns the outcome with these numbers, if the target is reached.
    fn reach(&self, numbers: Numbers) -> Option<Needed> {
        let mut setup = self.setup.clone();
        setup.has_budget = false;
        setup.memory_bytes = None;
        setup.numbers.insert(self.pool.clone(), numbers);
        let outcome = play(&setup, self.arrivals, self.times);
        let mut pools = outcome.pools.into_iter();
        let outcome = pools.find(|pool| pool.pool == *self.pool)?;
        let is_quick = u128::from(outcome.wait_ms(95)) <= self.target_ms;
        (is_quick && !outcome.never_catches_up).then_some(Needed { numbers, outcome })
    }

    /// Returns the smallest number up to `most` that reaches the target. The search begins at `first`.
    fn least(
        &self,
        first: usize,
        most: usize,
        numbers: impl Fn(usize) -> Numbers,
    ) -> Option<Needed> {
        let most = most.min(usize::from(Slot::MAX));
        let (mut low, mut high) = (0, first.clamp(1, most));
        let mut found = loop {
            match self.reach(numbers(high)) {
                Some(found) => break found,
                None if high == most => return None,
                None => (low, high) = (high, (high * 2).min(most)),
            }
        };
        while high - low > 1 {
            let middle = low.midpoint(high);
            match self.reach(numbers(middle)) {
                Some(better) => (high, found) = (middle, better),
                None => low = middle,
            }
        }
        Some(found)
    }
}
