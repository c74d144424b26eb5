//! Desired state of one pool.

use std::time::Duration;

use super::names::PoolName;
use super::schedule::{Cost, Demand};
use super::scope::ScopeId;

/// A pool as the configuration wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Name of the pool.
    pub name: PoolName,
    /// Scope in which its runners register; `None` if the pool is not configured any more and the host has
    /// several scopes.
    pub scope: Option<ScopeId>,
    /// Number of slots. Slots 1 to this number exist.
    pub slots: u16,
    /// Numbers of runners.
    pub numbers: Numbers,
    /// Identity of image and limits. A runner of another generation is replaced when it has no job.
    pub generation: String,
    /// Maximum number of containers that boot at once. A boot is mostly bound by the processor: with many more
    /// boots than cores each becomes later, and none sooner.
    pub boots_at_once: u16,
    /// Authority that tells how many runners should listen.
    pub demand: Demand,
    /// Time for which a pool keeps runners that no waiting job needs any more, so that jobs that come and go cost
    /// no boots. A pool with a fixed demand does not.
    pub scale_down_after: Duration,
    /// Cost of one runner in the host's budget. `None` if that is not known, because the pool is not configured
    /// any more.
    pub cost: Option<Cost>,
    /// Time limits.
    pub timeouts: Timeouts,
}

/// Numbers of runners that a pool wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Number of runners that are registered and wait for a job, besides those for waiting jobs.
    pub min_idle: u16,
    /// Number of spares: booted containers that are not registered.
    pub min_spare: u16,
    /// Maximum number of runners in all, not above the number of slots.
    pub max_runners: u16,
}

/// Time limits of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Maximum time from the start call until the container requests its JIT config.
    pub boot: Duration,
    /// Maximum time from the delivered JIT config until GitHub shows the runner online.
    pub registration: Duration,
    /// Maximum age of a spare.
    pub spare_age: Duration,
    /// Maximum age of an idle runner.
    pub idle_age: Duration,
    /// Maximum run time of a job.
    pub job: Duration,
    /// Time from a stop until the unit is killed.
    pub stop: Duration,
}

impl Spec {
    /// Returns the desired state of a pool that is not configured any more: no runner, and time for
    /// the jobs that run.
    #[must_use]
    pub fn unconfigured(name: PoolName, scope: Option<ScopeId>) -> Self {
        let day = Duration::from_hours(24);
        Self {
            name,
            scope,
            slots: 0,
            numbers: Numbers::default(),
            generation: String::new(),
            boots_at_once: 0,
            demand: Demand::Fixed,
            scale_down_after: Duration::ZERO,
            cost: None,
            timeouts: Timeouts {
                boot: day,
                registration: day,
                spare_age: day,
                idle_age: day,
                // The pool's own limit is not known any more. GitHub's limit of 5 days cuts no job
                // short ("Usage limits" of self-hosted runners).
                job: 5 * day,
                stop: Duration::from_secs(100),
            },
        }
    }
}
