//! Verdicts: their number since the daemon started, and the last ones.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::pool::{Ended, Exit, JobResult, PoolName, Timestamp, Verdict, VerdictRecord};

/// Maximum number of verdicts in the status.
const RECENT: usize = 20;

/// Verdicts for the status.
#[derive(Debug, Default)]
pub(super) struct History {
    counts: BTreeMap<PoolName, BTreeMap<Verdict, u64>>,
    results: BTreeMap<PoolName, BTreeMap<JobResult, u64>>,
    recent: VecDeque<VerdictRecord>,
}

impl History {
    /// Takes the last verdicts from the records, newest first. They do not count.
    pub(super) fn restore(&mut self, verdicts: &[VerdictRecord]) {
        self.recent = verdicts.iter().take(RECENT).cloned().collect();
    }

    /// Counts a verdict.
    pub(super) fn add(&mut self, verdict: VerdictRecord) {
        let counts = self.counts.entry(verdict.slot.pool.clone()).or_default();
        *counts.entry(verdict.verdict).or_default() += 1;
        if let Some(result) = verdict.result {
            let results = self.results.entry(verdict.slot.pool.clone()).or_default();
            *results.entry(result).or_default() += 1;
        }
        self.recent.push_front(verdict);
        self.recent.truncate(RECENT);
    }

    /// Returns the number of runners of a pool that ended since the daemon started, by verdict.
    pub(super) fn counts(&self, pool: &PoolName) -> BTreeMap<Verdict, u64> {
        self.counts.get(pool).cloned().unwrap_or_default()
    }

    /// Returns the number of jobs of a pool that ended since the daemon started, by result.
    pub(super) fn results(&self, pool: &PoolName) -> BTreeMap<JobResult, u64> {
        self.results.get(pool).cloned().unwrap_or_default()
    }

    /// Returns the last verdicts, newest first.
    pub(super) fn recent(&self) -> Vec<VerdictRecord> {
        self.recent.iter().cloned().collect()
    }
}

/// Returns the record of an end. `explanation` is the launcher's meaning of the exit status.
pub(super) fn verdict_record(
    ended: &Ended,
    explanation: Option<&str>,
    now: Timestamp,
    unix_ms: u64,
) -> VerdictRecord {
    let (runner, end) = (&ended.runner, ended.end.as_ref());
    let exit = end.map(|end| match (&end.exit, explanation) {
        (Exit::Status(status), Some(explanation)) => format!("status {status}: {explanation}"),
        (Exit::Status(status), None) => format!("status {status}"),
        (Exit::Signal(signal), _) => format!("signal {signal}"),
        (Exit::Unknown, _) => end.service_result.clone(),
    });
    let ended_at = end.map_or(now, |end| end.at.min(now));
    VerdictRecord {
        slot: ended.slot.clone(),
        verdict: ended.verdict,
        runner: runner.name().map(ToString::to_string),
        runner_id: runner.id(),
        job: runner.job.as_ref().map(|job| job.note.clone()),
        ended_unix_ms: unix_ms,
        lived_ms: millis(ended_at.since(runner.started_at)),
        job_ms: runner
            .job
            .as_ref()
            .map(|job| millis(ended_at.since(job.since))),
        exit,
        result: ended.result,
        last_line: end.and_then(|end| end.last_line.clone()),
        memory_peak_bytes: end.and_then(|end| end.memory_peak_bytes),
        oom_kills: end.map_or(0, |end| end.oom_kills),
        invocation: runner.invocation.clone(),
        phases: runner.timeline.since(runner.started_at),
        cpu_ms: end.and_then(|end| end.cpu_ms),
        generation: runner.generation.clone(),
    }
}

/// Returns a duration in milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
