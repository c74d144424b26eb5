//! Questions that readers of the document ask.

use crate::{
    BackoffStatus, FailureKind, PhaseKind, PoolStatus, RunnerStatus, Status, VerdictRecord,
};

impl Status {
    /// Returns the runners of all pools.
    pub fn runners(&self) -> impl Iterator<Item = &RunnerStatus> {
        self.pools.iter().flat_map(|pool| &pool.runners)
    }

    /// Returns the runners in a phase.
    #[must_use]
    pub fn in_phase(&self, phase: PhaseKind) -> Vec<&RunnerStatus> {
        self.runners()
            .filter(|runner| runner.phase == phase)
            .collect()
    }

    /// Returns the runner in a slot, by the name of its machine.
    #[must_use]
    pub fn machine(&self, machine: &str) -> Option<&RunnerStatus> {
        self.runners().find(|runner| runner.machine() == machine)
    }

    /// Returns the runner with a name at GitHub.
    #[must_use]
    pub fn runner(&self, name: &str) -> Option<&RunnerStatus> {
        self.runners()
            .find(|runner| runner.runner.as_deref() == Some(name))
    }

    /// Returns a pool by its name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&PoolStatus> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// Returns the end of the runner with a name at GitHub, if it is among the last ones.
    #[must_use]
    pub fn ended(&self, runner: &str) -> Option<&VerdictRecord> {
        self.recent
            .iter()
            .find(|ended| ended.runner.as_deref() == Some(runner))
    }

    /// Returns a failure that delays new tries in any pool.
    #[must_use]
    pub fn backoff(&self, failure: FailureKind) -> Option<&BackoffStatus> {
        self.pools
            .iter()
            .flat_map(|pool| &pool.backoffs)
            .find(|backoff| backoff.failure == failure)
    }
}
