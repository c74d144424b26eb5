//! What one pool is wanted to be.

use std::time::Duration;

use super::names::PoolName;

/// A pool as the core needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: PoolName,
    /// Registered and waiting for a job.
    pub min_idle: u16,
    /// Booted and not registered.
    pub min_spare: u16,
    /// All lives together; slots 1 to this number exist.
    pub max_runners: u16,
    /// What a life is started from; a life with another generation is replaced when it can be.
    pub generation: String,
    /// How many may boot at once: booting is bound by the processor, and more at once than there
    /// are cores makes each later, not all sooner.
    pub boots_at_once: u16,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From the start call until the container has asked for its config.
    pub boot: Duration,
    /// From the answer until GitHub shows the runner online.
    pub registration: Duration,
    /// A spare older than this is replaced.
    pub spare_age: Duration,
    /// An idle runner older than this is replaced.
    pub idle_age: Duration,
    /// From the job's start to its end.
    pub job: Duration,
    /// From a stop until it is asked again, harder.
    pub stop: Duration,
}
