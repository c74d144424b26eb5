//! The status document, from the state of the controller.

use super::Controller;
use super::history::millis;
use crate::pool::{Mode, PhaseKind, Pool, Runner, Timestamp};
use crate::status::{
    BackoffStatus, DaemonState, GitHubStatus, JobStatus, PoolStatus, RunnerStatus, Status, VERSION,
    Wanted,
};
use crate::world::{Handshake, Machines, Records, Registry};

fn runner_status(pool: &Pool, runner: &Runner, now: Timestamp) -> RunnerStatus {
    RunnerStatus {
        cause: runner.phase.cause(),
        unreachable: runner.is_unreachable(),
        address_lost: runner.has_lost_address(),
        age_ms: millis(now.since(runner.started_at)),
        phase_ms: millis(now.since(runner.since)),
        runner: runner.name().map(ToString::to_string),
        runner_id: runner.id(),
        invocation: runner.invocation.clone(),
        job: runner.job.as_ref().map(|job| JobStatus {
            note: job.note.clone(),
            running_ms: millis(now.since(job.since)),
            timeout_ms: Some(millis(pool.spec.timeouts.job)),
        }),
        ..RunnerStatus::new(pool.slot_id(runner.slot), runner.phase.kind())
    }
}

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    /// Publishes the status as it is now.
    pub(super) fn publish(&self) {
        let now = (self.environment.now)();
        let conditions = &self.conditions;
        let (error, error_unix_ms) = conditions.github_error.clone().unzip();
        let is_shown =
            |pool: &&Pool| self.config.pool(&pool.spec.name).is_some() || !pool.runners.is_empty();
        let strays = self.pools.orphans().iter();
        let pools = self.pools.iter().filter(is_shown);
        let status = Status {
            version: VERSION,
            host: self.config.host.to_string(),
            scope: self.config.github.scope.to_string(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.state(),
            clearing: self.clearings.status(self.mode),
            closed: self.closed(),
            at_unix_ms: (self.environment.unix_ms)(),
            since_unix_ms: self.started_unix_ms,
            github: GitHubStatus {
                last_ok_unix_ms: conditions.github_ok_unix_ms,
                error,
                error_unix_ms,
                calls: (self.environment.calls)(),
                listed: self.listed,
            },
            systemd_error: conditions.systemd_error.clone(),
            firewall_error: conditions.firewall_problem.clone(),
            shortages: conditions.shortages.clone(),
            records_error: conditions.records_error.clone(),
            notes: self.environment.notes.clone(),
            strays: strays.map(|(_, name)| name.to_string()).collect(),
            pools: pools.map(|pool| self.pool_status(pool, now)).collect(),
            recent: self.history.recent(),
        };
        self.status.send_replace(status);
    }

    pub(super) fn state(&self) -> DaemonState {
        let is_vacant = self.pools.is_vacant();
        match self.mode {
            Mode::Running => DaemonState::Running,
            Mode::Draining if is_vacant => DaemonState::Drained,
            Mode::Draining => DaemonState::Draining,
            Mode::Clearing | Mode::ClearingToRefill
                if is_vacant && self.pools.orphans().is_empty() =>
            {
                DaemonState::Cleared
            }
            Mode::Clearing | Mode::ClearingToRefill => DaemonState::Clearing,
        }
    }

    /// Returns the reasons for which no runner starts.
    fn closed(&self) -> Vec<String> {
        let mode = match self.mode {
            Mode::Running => None,
            Mode::Draining => Some("draining, until `runner-controller undrain`"),
            Mode::Clearing | Mode::ClearingToRefill => {
                Some("removing all containers, until `runner-controller undrain`")
            }
        };
        let mode = mode.map(str::to_owned);
        mode.into_iter().chain(self.conditions.blocks()).collect()
    }

    fn pool_status(&self, pool: &Pool, now: Timestamp) -> PoolStatus {
        let configured = self.config.pool(&pool.spec.name);
        let count = |phase: &PhaseKind| {
            let count = pool.count(|p| p.kind() == *phase);
            (*phase, count as u64)
        };
        let verdicts = self.history.counts(&pool.spec.name);
        let failures = verdicts.iter().filter(|(verdict, _)| verdict.is_failure());
        let backoffs = pool.backoffs.iter();
        let runners = pool.runners.values();
        PoolStatus {
            name: pool.spec.name.to_string(),
            labels: configured.map_or_else(Vec::new, |pool| pool.labels.clone()),
            wanted: Wanted {
                idle: pool.spec.min_idle,
                spare: pool.spec.min_spare,
                max: pool.spec.max_runners,
            },
            phases: PhaseKind::ALL.iter().map(count).collect(),
            failed: failures.map(|(_, count)| count).sum(),
            verdicts,
            results: self.history.results(&pool.spec.name),
            backoffs: backoffs
                .map(|(failure, backoff)| BackoffStatus {
                    failure,
                    failures: backoff.failures,
                    retry_in_ms: millis(backoff.until.since(now)),
                    reason: backoff.reason.clone(),
                })
                .collect(),
            runners: runners
                .map(|runner| runner_status(pool, runner, now))
                .collect(),
        }
    }
}
