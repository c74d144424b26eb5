//! The numbers that a pool wants and has, for the schedule.

use super::budget::Cost;
use super::demand::Demand;
use crate::backoff::FailureKind;
use crate::runner::Phase;
use crate::{Pool, PoolName, Timestamp};

/// Numbers that a pool wants and has, for the schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSupply {
    /// The pool.
    pub name: PoolName,
    /// Authority for its demand.
    pub demand: Demand,
    /// Cost of one runner.
    pub cost: Cost,
    /// Number of idle runners that it wants besides those for waiting jobs.
    pub min_idle: usize,
    /// Number of spares that it wants.
    pub min_spare: usize,
    /// Maximum number of its runners.
    pub max_runners: usize,
    /// Number of all its runners, those that end included.
    pub runners: usize,
    /// Number of its runners that end.
    pub ending: usize,
    /// Number of runners that mint, register or wait for a job, without those of `told`.
    pub listeners: usize,
    /// Number of runners that listen by their phase, and have a job as an event told. They count as busy.
    pub told: usize,
    /// Number of runners that boot or are spares.
    pub spares: usize,
    /// Number of containers that may start, whatever the budget says.
    pub startable: usize,
    /// Number of its waiting jobs that a runner of this host has already.
    pub taken: usize,
    /// Number of runners with a job.
    pub busy: usize,
    /// Number of spares that may register now.
    pub registrable: usize,
    /// True if its scale set announces room for one job, although the budget leaves none.
    pub may_ask: bool,
    /// True if the pool backs off from failures of its runners.
    pub is_failing: bool,
    /// True if one runner should listen although the scale set tells of no job.
    pub wants_probe: bool,
}

impl PoolSupply {
    /// Returns what a pool has now. `taken` is the number of its waiting jobs that a runner has already, and
    /// `mint_quota` the number of registrations that its scope allows now.
    ///
    /// A runner of a pool that is not configured any more may have cost as much as `largest`.
    #[must_use]
    pub fn of(pool: &Pool, taken: usize, mint_quota: usize, largest: Cost, now: Timestamp) -> Self {
        let spec = &pool.spec;
        let (mut listeners, mut spares, mut ending, mut booting) = (0, 0, 0, 0);
        let mut busy = 0;
        for runner in pool.runners.values() {
            match &runner.phase {
                Phase::Booting => (spares, booting) = (spares + 1, booting + 1),
                Phase::Spare => spares += 1,
                // It serves another scope.
                Phase::Registering | Phase::Idle if !pool.serves(runner) => {}
                Phase::Minting | Phase::Registering | Phase::Idle => listeners += 1,
                Phase::Busy => busy += 1,
                Phase::Retiring { .. } => ending += 1,
            }
        }
        let runners = pool.runners.len();
        let max_runners = usize::from(spec.numbers.max_runners);
        let room = max_runners.saturating_sub(runners);
        let mut failures = pool.backoffs.iter();
        let boots_fail = failures.any(|(failure, _)| failure == FailureKind::Boot);
        let is_due = pool.backoffs.is_due(FailureKind::Boot, now);
        let startable = match (boots_fail, is_due && booting == 0) {
            (false, _) => room,
            // One container tries whether boots succeed again.
            (true, true) => room.min(1),
            (true, false) => 0,
        };
        let is_refused = (pool.backoffs.iter()).any(|(failure, _)| failure == FailureKind::Version);
        let registrable = match (pool.backoffs.may_register(now), is_refused) {
            (false, _) => 0,
            // One runner tries whether GitHub takes its version now.
            (true, true) => mint_quota.min(1),
            (true, false) => mint_quota,
        };
        Self {
            name: spec.name.clone(),
            demand: spec.demand,
            cost: spec.cost.unwrap_or(largest),
            min_idle: usize::from(spec.numbers.min_idle),
            min_spare: usize::from(spec.numbers.min_spare),
            max_runners,
            runners,
            ending,
            listeners,
            told: 0,
            spares,
            startable,
            taken,
            busy,
            registrable,
            may_ask: false,
            is_failing: !pool.backoffs.is_empty(),
            wants_probe: pool.silence.is_some_and(|silence| silence.wants_probe(now)),
        }
    }

    /// Counts `told` listeners as busy, because events named them as the runners of jobs.
    ///
    /// GitHub's event can come seconds before the job-started hook. Until then the runner must not count for another
    /// job, which would leave a spare without one.
    #[must_use]
    pub fn with_told(self, told: usize) -> Self {
        let told = told.min(self.listeners);
        Self {
            listeners: self.listeners - told,
            busy: self.busy + told,
            told,
            ..self
        }
    }

    /// Returns the number of runners that have no job and do not end.
    #[must_use]
    pub fn free(&self) -> usize {
        self.listeners + self.spares
    }
}
