//! Questions that readers of the document ask.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::{
    BackoffStatus, FailureKind, GitHubStatus, PhaseKind, PoolStatus, RunnerStatus, ScopeStatus,
    Status, VerdictRecord,
};

impl GitHubStatus {
    /// Returns the state of all scopes together. Of one scope it is that scope's state.
    ///
    /// The time of the last answer is the oldest, so that a scope that never answered shows.
    #[must_use]
    pub fn of(scopes: &[ScopeStatus]) -> Self {
        let all = || scopes.iter().map(|scope| &scope.github);
        let failed = scopes.iter().find(|scope| scope.github.error.is_some());
        let error = failed.and_then(|scope| {
            let error = scope.github.error.as_ref()?;
            Some(match &scope.name {
                Some(name) => format!("scope {name}: {error}"),
                None => error.clone(),
            })
        });
        let mut calls: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for (operation, outcomes) in all().flat_map(|github| &github.calls) {
            let known = calls.entry(operation.clone()).or_default();
            for (outcome, count) in outcomes {
                *known.entry(outcome.clone()).or_default() += count;
            }
        }
        Self {
            last_ok_unix_ms: all().map(|github| github.last_ok_unix_ms).min().flatten(),
            error,
            error_unix_ms: failed.and_then(|scope| scope.github.error_unix_ms),
            calls,
            listed: all().map(|github| github.listed).sum(),
            server_url: all().find_map(|github| github.server_url.clone()),
            pace: match scopes {
                [scope] => scope.github.pace,
                [] | [_, _, ..] => None,
            },
        }
    }
}

impl Status {
    /// Returns the runners of all pools.
    pub fn runners(&self) -> impl Iterator<Item = &RunnerStatus> {
        self.pools.iter().flat_map(|pool| &pool.runners)
    }

    /// Returns the document as of a later time: ages grow, and times until a next try shrink.
    #[must_use]
    pub fn at(&self, now_unix_ms: u64) -> Self {
        let later = now_unix_ms.saturating_sub(self.at_unix_ms);
        let mut status = self.clone();
        status.at_unix_ms += later;
        for pool in &mut status.pools {
            for backoff in &mut pool.backoffs {
                backoff.retry_in_ms = backoff.retry_in_ms.saturating_sub(later);
            }
            for runner in &mut pool.runners {
                runner.age_ms = runner.age_ms.saturating_add(later);
                runner.phase_ms = runner.phase_ms.saturating_add(later);
                if let Some(job) = &mut runner.job {
                    job.running_ms = job.running_ms.saturating_add(later);
                }
            }
        }
        status
    }

    /// Returns the runners in a phase.
    #[must_use]
    pub fn in_phase(&self, phase: PhaseKind) -> Vec<&RunnerStatus> {
        self.runners()
            .filter(|runner| runner.phase == phase)
            .collect()
    }

    /// Returns the configured scopes, also of a daemon of an earlier version.
    #[must_use]
    pub fn scopes(&self) -> Cow<'_, [ScopeStatus]> {
        if !self.scopes.is_empty() {
            return Cow::Borrowed(&self.scopes);
        }
        Cow::Owned(vec![ScopeStatus {
            name: None,
            scope: self.scope.clone(),
            github: self.github.clone(),
            answer_times: BTreeMap::new(),
            rate_limits: Vec::new(),
            strays: self.strays.clone(),
            foreign: self.foreign.clone(),
        }])
    }

    /// Returns the scope in which the runners of a pool register.
    #[must_use]
    pub fn scope_of(&self, pool: &PoolStatus) -> Option<&ScopeStatus> {
        self.scopes.iter().find(|scope| scope.name == pool.scope)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JobStatus, SlotId};

    #[test]
    fn a_document_of_some_time_ago_tells_the_ages_of_now() {
        let slot: SlotId = "ci-1".parse().unwrap();
        let status = Status {
            at_unix_ms: 10_000,
            pools: vec![PoolStatus {
                backoffs: vec![BackoffStatus {
                    failure: FailureKind::Boot,
                    failures: 1,
                    retry_in_ms: 5_000,
                    reason: String::new(),
                }],
                runners: vec![RunnerStatus {
                    age_ms: 7,
                    phase_ms: 5,
                    job: Some(JobStatus::default()),
                    ..RunnerStatus::new(slot, PhaseKind::Busy)
                }],
                ..PoolStatus::default()
            }],
            ..Status::default()
        };
        let now = status.at(17_000);
        assert_eq!(now.at_unix_ms, 17_000);
        assert_eq!(now.pools[0].backoffs[0].retry_in_ms, 0);
        let runner = &now.pools[0].runners[0];
        assert_eq!((runner.age_ms, runner.phase_ms), (7_007, 7_005));
        assert_eq!(runner.job.as_ref().unwrap().running_ms, 7_000);
        // A clock that went back changes nothing.
        assert_eq!(status.at(9_000), status);
    }
}
