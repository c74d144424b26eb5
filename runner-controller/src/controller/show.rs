//! The pools as a [`Status`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Controller, Mode};
use crate::pool::{Closed, Exit, Phase, Pool, PoolName, Runner, SlotId, Spec, Timeouts, Timestamp};
use crate::status::{
    BackoffStatus, EndedStatus, GitHubStatus, JobStatus, PoolStatus, RunnerStatus, Status, VERSION,
    Wanted,
};
use crate::world::{Handshake, Machines, Records, Registry, VerdictRecord};

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

pub(super) fn verdict_record(id: &SlotId, closed: &Closed, ended: &EndedStatus) -> VerdictRecord {
    VerdictRecord {
        slot: id.clone(),
        verdict: closed.verdict.as_str().to_owned(),
        runner: ended.runner.clone(),
        runner_id: closed
            .runner
            .registration
            .as_ref()
            .and_then(|runner| runner.id),
        job: closed.runner.job.as_ref().map(|job| job.note.clone()),
        started_unix_ms: ended.ended_unix_ms.saturating_sub(ended.lived_ms),
        ended_unix_ms: ended.ended_unix_ms,
        job_ms: ended.job_ms,
        exit: ended.exit.clone(),
        memory_peak_bytes: ended.memory_peak_bytes,
        oom_kills: ended.oom_kills,
        invocation: closed.runner.invocation.as_ref().map(ToString::to_string),
    }
}

/// An ended life, read back from the history.
pub(super) fn ended(record: &VerdictRecord) -> EndedStatus {
    EndedStatus {
        machine: record.slot.to_string(),
        verdict: record.verdict.clone(),
        runner: record.runner.clone(),
        ended_unix_ms: record.ended_unix_ms,
        lived_ms: record.ended_unix_ms.saturating_sub(record.started_unix_ms),
        job_ms: record.job_ms,
        exit: record.exit.clone(),
        memory_peak_bytes: record.memory_peak_bytes,
        oom_kills: record.oom_kills,
    }
}

fn runner_status(pool: &Pool, runner: &Runner, now: Timestamp) -> RunnerStatus {
    let id = pool.slot_id(runner.slot);
    let job = runner.job.as_ref().map(|job| JobStatus {
        repository: job.note.repository.clone(),
        workflow: job.note.workflow.clone(),
        job: job.note.job.clone(),
        run_id: job.note.run_id.clone(),
        running_ms: millis(now.since(job.since)),
    });
    RunnerStatus {
        machine: id.to_string(),
        unit: id.unit(),
        phase: runner.phase.as_str().to_owned(),
        cause: match &runner.phase {
            Phase::Retiring { cause, .. } => Some(cause.to_string()),
            Phase::Booting
            | Phase::Spare
            | Phase::Minting
            | Phase::Registering
            | Phase::Idle
            | Phase::Busy => None,
        },
        age_ms: millis(now.since(runner.started_at)),
        phase_ms: millis(now.since(runner.since)),
        runner: runner
            .registration
            .as_ref()
            .map(|registration| registration.name.to_string()),
        runner_id: runner
            .registration
            .as_ref()
            .and_then(|registration| registration.id)
            .map(|id| id.0),
        invocation: runner.invocation.as_ref().map(ToString::to_string),
        job,
    }
}

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    /// What the launcher meant by a life's exit status. A container's own status arrives in the same
    /// place and may be any number, so only a life that never was up is asked.
    pub(super) fn launcher_reason(&self, closed: &Closed) -> Option<&'static str> {
        match closed.end.as_ref().map(|end| &end.exit) {
            Some(Exit::Status(status)) if !closed.runner.active => {
                (self.ports.explain_exit)(*status)
            }
            Some(Exit::Status(_) | Exit::Signal(_) | Exit::Unknown) | None => None,
        }
    }

    pub(super) fn describe(&self, id: &SlotId, closed: &Closed, now: Timestamp) -> EndedStatus {
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
        EndedStatus {
            machine: id.to_string(),
            verdict: closed.verdict.as_str().to_owned(),
            runner: closed
                .runner
                .registration
                .as_ref()
                .map(|registration| registration.name.to_string()),
            ended_unix_ms: (self.ports.unix_ms)(),
            lived_ms: millis(over.since(closed.runner.started_at)),
            job_ms: closed
                .runner
                .job
                .as_ref()
                .map(|job| millis(over.since(job.since))),
            exit,
            memory_peak_bytes: end.and_then(|end| end.memory_peak_bytes),
            oom_kills: end.map_or(0, |end| end.oom_kills),
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
        for (resource, why) in &self.shown.short {
            reasons.push(format!("{resource}: {why}"));
        }
        reasons
    }

    fn state(&self) -> &'static str {
        let empty = self.pools.values().all(|pool| pool.runners.is_empty());
        match self.mode {
            Mode::Running => "running",
            Mode::Draining if empty => "drained",
            Mode::Draining => "draining",
            Mode::Clearing if empty && self.ledger.is_empty() => "cleared",
            Mode::Clearing => "clearing",
        }
    }

    fn is_configured(&self, pool: &Pool) -> bool {
        self.config.pool(&pool.spec.name).is_some()
    }

    fn pool_status(&self, pool: &Pool, now: Timestamp) -> PoolStatus {
        let mut phases: BTreeMap<String, u64> = [
            "booting",
            "spare",
            "minting",
            "registering",
            "idle",
            "busy",
            "retiring",
        ]
        .map(|name| (name.to_owned(), 0))
        .into();
        for runner in pool.runners.values() {
            *phases.entry(runner.phase.as_str().to_owned()).or_default() += 1;
        }
        let verdicts = self.shown.verdicts.get(&pool.spec.name);
        let backoffs = pool
            .backoffs
            .iter()
            .map(|(failure, backoff)| BackoffStatus {
                failure: failure.as_str().to_owned(),
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
            verdicts: verdicts
                .into_iter()
                .flatten()
                .map(|(verdict, count)| (verdict.as_str().to_owned(), *count))
                .collect(),
            failed: verdicts
                .into_iter()
                .flatten()
                .filter(|(verdict, _)| verdict.is_failure())
                .map(|(_, count)| count)
                .sum(),
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
        let now = (self.ports.now)();
        let (error, error_at) = self.shown.github_error.clone().unzip();
        let status = Status {
            version: VERSION,
            host: self.config.host.to_string(),
            scope: self.config.github.scope.to_string(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.state().to_owned(),
            closed: self.closed_reasons(),
            at_unix_ms: (self.ports.unix_ms)(),
            since_unix_ms: self.shown.since_unix_ms,
            github: GitHubStatus {
                last_ok_unix_ms: self.shown.github_ok_unix_ms,
                error,
                error_unix_ms: error_at,
                calls: (self.ports.calls)(),
                listed: self.shown.listed,
            },
            systemd_error: self.shown.systemd_error.clone(),
            firewall_error: self.shown.firewall_error.clone(),
            short: self
                .shown
                .short
                .iter()
                .map(|(resource, why)| (resource.as_str().to_owned(), why.clone()))
                .collect(),
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
