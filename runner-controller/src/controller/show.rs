//! The pools as a [`Status`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Controller, Mode};
use crate::pool::{
    Ended, Exit, PhaseKind, Pool, PoolName, Runner, SlotId, Spec, Timeouts, Timestamp,
};
use crate::status::{
    BackoffStatus, DaemonState, GitHubStatus, JobStatus, PoolStatus, RunnerStatus, Status, VERSION,
    VerdictRecord, Wanted,
};
use crate::world::{Handshake, Machines, Records, Registry};

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A pool that is not configured, wanted to be empty.
pub(super) fn unconfigured(name: &PoolName) -> Spec {
    let day = Duration::from_hours(24);
    Spec {
        name: name.clone(),
        min_idle: 0,
        min_spare: 0,
        max_runners: 0,
        generation: String::new(),
        boots_at_once: 0,
        timeouts: Timeouts {
            boot: day,
            registration: day,
            spare_age: day,
            idle_age: day,
            // What its own bound was is not known any more: GitHub's, which is no job's loss.
            job: 5 * day,
            stop: Duration::from_secs(100),
        },
    }
}

fn runner_status(pool: &Pool, runner: &Runner, now: Timestamp) -> RunnerStatus {
    let job = runner.job.as_ref().map(|job| JobStatus {
        note: job.note.clone(),
        running_ms: millis(now.since(job.since)),
    });
    RunnerStatus {
        cause: runner.phase.cause(),
        age_ms: millis(now.since(runner.started_at)),
        phase_ms: millis(now.since(runner.since)),
        runner: runner
            .registration
            .as_ref()
            .map(|registration| registration.name.to_string()),
        runner_id: runner
            .registration
            .as_ref()
            .and_then(|registration| registration.id),
        invocation: runner.invocation.clone(),
        job,
        ..RunnerStatus::new(pool.slot_id(runner.slot), runner.phase.kind())
    }
}

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    /// What the launcher meant by a life's exit status. A container's own status arrives in the same
    /// place and may be any number, so only a life that never was up is asked.
    pub(super) fn launcher_reason(&self, closed: &Ended) -> Option<&'static str> {
        match closed.end.as_ref().map(|end| &end.exit) {
            Some(Exit::Status(status)) if !closed.runner.active => {
                (self.environment.explain_exit)(*status)
            }
            Some(Exit::Status(_) | Exit::Signal(_) | Exit::Unknown) | None => None,
        }
    }

    /// Returns the record of an end, with wall-clock times and the exit in words.
    pub(super) fn verdict_record(
        &self,
        id: &SlotId,
        closed: &Ended,
        now: Timestamp,
    ) -> VerdictRecord {
        let registration = closed.runner.registration.as_ref();
        let end = closed.end.as_ref();
        let exit = end.map(|end| match &end.exit {
            Exit::Status(status) => match self.launcher_reason(closed) {
                Some(why) => format!("status {status}: {why}"),
                None => format!("status {status}"),
            },
            Exit::Signal(signal) => format!("signal {signal}"),
            Exit::Unknown => end.service_result.clone(),
        });
        let over = end.map_or(now, |end| end.at.min(now));
        VerdictRecord {
            slot: id.clone(),
            verdict: closed.verdict,
            runner: registration.map(|registration| registration.name.to_string()),
            runner_id: registration.and_then(|registration| registration.id),
            job: closed.runner.job.as_ref().map(|job| job.note.clone()),
            ended_unix_ms: (self.environment.unix_ms)(),
            lived_ms: millis(over.since(closed.runner.started_at)),
            job_ms: closed
                .runner
                .job
                .as_ref()
                .map(|job| millis(over.since(job.since))),
            exit,
            memory_peak_bytes: end.and_then(|end| end.memory_peak_bytes),
            oom_kills: end.map_or(0, |end| end.oom_kills),
            invocation: closed.runner.invocation.clone(),
        }
    }

    fn closed_reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        match self.mode {
            Mode::Running => {}
            Mode::Draining => {
                reasons.push("draining, until `runner-controller undrain`".to_owned());
            }
            Mode::Clearing => reasons
                .push("everything is being removed, until `runner-controller undrain`".to_owned()),
        }
        if let Some(error) = &self.shown.systemd_error {
            reasons.push(format!("systemd: {error}"));
        }
        if let Some(error) = &self.shown.firewall_error {
            reasons.push(format!("firewall: {error}"));
        }
        for (resource, why) in &self.shown.shortages {
            reasons.push(format!("{resource}: {why}"));
        }
        reasons
    }

    fn state(&self) -> DaemonState {
        let empty = self.pools.values().all(|pool| pool.runners.is_empty());
        match self.mode {
            Mode::Running => DaemonState::Running,
            Mode::Draining if empty => DaemonState::Drained,
            Mode::Draining => DaemonState::Draining,
            Mode::Clearing if empty && self.ledger.is_empty() => DaemonState::Cleared,
            Mode::Clearing => DaemonState::Clearing,
        }
    }

    fn is_configured(&self, pool: &Pool) -> bool {
        self.config.pool(&pool.spec.name).is_some()
    }

    fn pool_status(&self, pool: &Pool, now: Timestamp) -> PoolStatus {
        let mut phases: BTreeMap<PhaseKind, u64> =
            PhaseKind::ALL.iter().map(|phase| (*phase, 0)).collect();
        for runner in pool.runners.values() {
            *phases.entry(runner.phase.kind()).or_default() += 1;
        }
        let verdicts = self.shown.verdicts.get(&pool.spec.name).cloned();
        let verdicts = verdicts.unwrap_or_default();
        let backoffs = pool
            .backoffs
            .iter()
            .map(|(failure, backoff)| BackoffStatus {
                failure,
                failures: backoff.failures,
                retry_in_ms: millis(backoff.until.since(now)),
                reason: backoff.reason.clone(),
            });
        PoolStatus {
            name: pool.spec.name.to_string(),
            labels: self
                .config
                .pool(&pool.spec.name)
                .map(|pool| pool.labels.clone())
                .unwrap_or_default(),
            wanted: Wanted {
                idle: pool.spec.min_idle,
                spare: pool.spec.min_spare,
                max: pool.spec.max_runners,
            },
            phases,
            failed: verdicts
                .iter()
                .filter(|(verdict, _)| verdict.is_failure())
                .map(|(_, count)| count)
                .sum(),
            verdicts,
            backoffs: backoffs.collect(),
            runners: pool
                .runners
                .values()
                .map(|runner| runner_status(pool, runner, now))
                .collect(),
        }
    }

    /// Publishes the status as it is now.
    pub(super) fn show(&self) {
        let now = (self.environment.now)();
        let (error, error_at) = self.shown.github_error.clone().unzip();
        let status = Status {
            version: VERSION,
            host: self.config.host.to_string(),
            scope: self.config.github.scope.to_string(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.state(),
            closed: self.closed_reasons(),
            at_unix_ms: (self.environment.unix_ms)(),
            since_unix_ms: self.shown.since_unix_ms,
            github: GitHubStatus {
                last_ok_unix_ms: self.shown.github_ok_unix_ms,
                error,
                error_unix_ms: error_at,
                calls: (self.environment.calls)(),
                listed: self.shown.listed,
            },
            systemd_error: self.shown.systemd_error.clone(),
            firewall_error: self.shown.firewall_error.clone(),
            shortages: self.shown.shortages.clone(),
            records_error: self.shown.records_error.clone(),
            strays: self
                .ledger
                .names()
                .map(|(_, name)| name.to_string())
                .collect(),
            pools: self
                .pools
                .values()
                .filter(|pool| self.is_configured(pool) || !pool.runners.is_empty())
                .map(|pool| self.pool_status(pool, now))
                .collect(),
            recent: self.shown.recent.iter().cloned().collect(),
        };
        self.status.send_replace(status);
    }
}
