//! The numbers that the plan of one pool works towards.

use std::time::Duration;

use crate::Timestamp;

/// Default of `scale_down_after`. A boot costs seconds of all processors, and an idle runner costs memory that
/// its pool was promised. Most workflows queue their next jobs within two minutes.
pub const DEFAULT_SCALE_DOWN_AFTER: Duration = Duration::from_mins(2);

/// Numbers of runners that a pool should have now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Runners that listen.
    pub listeners: usize,
    /// Spares.
    pub spares: usize,
    /// Maximum number of runners, those that end included.
    pub max: usize,
    /// Runners without a job that must make room for a waiting job of another pool.
    pub preempted: usize,
}

impl Target {
    /// Returns the number of runners without a job.
    #[must_use]
    pub fn free(&self) -> usize {
        self.listeners + self.spares
    }
}

/// Number of runners without a job that a pool keeps although the target is lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(super) count: usize,
    pub(super) since: Timestamp,
}
