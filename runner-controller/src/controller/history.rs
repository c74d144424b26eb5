//! Verdicts: their number since the daemon started, and the last ones.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::pool::{Ended, Exit, JobResult, PhaseKind, PoolName, Timestamp, Verdict, VerdictRecord};
use crate::status::{Histogram, Measure};

/// Maximum number of verdicts in the status.
const RECENT: usize = 20;

/// Verdicts for the status.
#[derive(Debug, Default)]
pub(super) struct History {
    counts: BTreeMap<PoolName, BTreeMap<Verdict, u64>>,
    results: BTreeMap<PoolName, BTreeMap<JobResult, u64>>,
    measures: BTreeMap<PoolName, BTreeMap<Measure, Histogram>>,
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
        let measures = self.measures.entry(verdict.slot.pool.clone()).or_default();
        for (measure, value) in values(&verdict) {
            measures.entry(measure).or_default().add(measure, value);
        }
        // A daemon that starts learns of several ends at once.
        let is_later = |earlier: &VerdictRecord| earlier.ended_unix_ms > verdict.ended_unix_ms;
        let at = self.recent.partition_point(is_later);
        self.recent.insert(at, verdict);
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

    /// Returns the sizes of the runners of a pool that ended since the daemon started.
    pub(super) fn measures(&self, pool: &PoolName) -> BTreeMap<Measure, Histogram> {
        self.measures.get(pool).cloned().unwrap_or_default()
    }

    /// Returns the last verdicts, newest first.
    pub(super) fn recent(&self) -> Vec<VerdictRecord> {
        self.recent.iter().cloned().collect()
    }
}

/// Returns what is measured of a runner that ended. A phase that failed has no duration.
fn values(ended: &VerdictRecord) -> Vec<(Measure, u64)> {
    let after = |kinds: &[PhaseKind]| {
        let mut entries = ended.phases.iter();
        let entry = entries.find(|entry| kinds.contains(&entry.phase));
        entry.map(|entry| entry.after_ms)
    };
    let between = |from: &[PhaseKind], to: &[PhaseKind]| after(to)?.checked_sub(after(from)?);
    // A runner that a restarted daemon found has no phase before that.
    let boot = between(
        &[PhaseKind::Booting],
        &[PhaseKind::Spare, PhaseKind::Minting],
    );
    let registration = between(&[PhaseKind::Minting], &[PhaseKind::Idle, PhaseKind::Busy]);
    let had_job = ended.job_ms.is_some();
    [
        (Measure::Boot, boot),
        (Measure::Registration, registration),
        (Measure::Job, ended.job_ms),
        (Measure::JobCpu, ended.cpu_ms.filter(|_| had_job)),
        (
            Measure::JobMemoryPeak,
            ended.memory_peak_bytes.filter(|_| had_job),
        ),
    ]
    .into_iter()
    .filter_map(|(measure, value)| Some((measure, value?)))
    .collect()
}

/// Returns the wall-clock time of an end. A daemon that was away learns of it later.
fn wall_clock(ended_at: Timestamp, now: Timestamp, unix_ms: u64) -> u64 {
    unix_ms.saturating_sub(millis(now.since(ended_at)))
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
    let after = |at: Timestamp| millis(at.since(runner.started_at));
    // A container says so, and one that was found is older than its first observation.
    let listening_at = end.and_then(|end| end.listening_at);
    let listening_at = listening_at.filter(|at| (runner.started_at..=ended_at).contains(at));
    VerdictRecord {
        slot: ended.slot.clone(),
        verdict: ended.verdict,
        runner: runner.name().map(ToString::to_string),
        runner_id: runner.id(),
        job: runner.job.as_ref().map(|job| job.note.clone()),
        ended_unix_ms: wall_clock(ended_at, now, unix_ms),
        lived_ms: millis(ended_at.since(runner.started_at)),
        asked_after_ms: runner.asked_at.map(after),
        listening_after_ms: listening_at.map(after),
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
        usage: end.map(|end| end.usage).unwrap_or_default(),
        generation: runner.generation.clone(),
        version: runner.version,
    }
}

/// Returns a duration in milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{PhaseEntry, ResourceUse};

    fn ended(phases: &[(PhaseKind, u64)], job_ms: Option<u64>) -> VerdictRecord {
        let entry = |(phase, after_ms): &(PhaseKind, u64)| PhaseEntry {
            phase: *phase,
            after_ms: *after_ms,
        };
        VerdictRecord {
            slot: "ci-1".parse().unwrap(),
            verdict: Verdict::JobDone,
            runner: None,
            runner_id: None,
            job: None,
            ended_unix_ms: 0,
            asked_after_ms: None,
            listening_after_ms: None,
            lived_ms: 0,
            job_ms,
            exit: None,
            result: None,
            last_line: None,
            memory_peak_bytes: Some(1 << 30),
            oom_kills: 0,
            invocation: None,
            phases: phases.iter().map(entry).collect(),
            cpu_ms: Some(700),
            usage: ResourceUse::default(),
            generation: None,
            version: None,
        }
    }

    #[test]
    fn an_end_has_its_own_time_however_late_the_daemon_learns_of_it() {
        let at = Timestamp::from_millis;
        assert_eq!(wall_clock(at(1_000), at(1_000), 90_000), 90_000);
        assert_eq!(wall_clock(at(1_000), at(61_000), 90_000), 30_000);
        // The clock of the host was set back meanwhile.
        assert_eq!(wall_clock(at(1_000), at(61_000), 5), 0);
    }

    #[test]
    fn a_runner_with_a_job_gives_every_measure() {
        let phases = [
            (PhaseKind::Booting, 0),
            (PhaseKind::Spare, 300),
            (PhaseKind::Minting, 1_000),
            (PhaseKind::Registering, 1_200),
            (PhaseKind::Idle, 1_900),
            (PhaseKind::Busy, 5_000),
        ];
        assert_eq!(
            values(&ended(&phases, Some(9_000))),
            [
                (Measure::Boot, 300),
                (Measure::Registration, 900),
                (Measure::Job, 9_000),
                (Measure::JobCpu, 700),
                (Measure::JobMemoryPeak, 1 << 30),
            ]
        );
    }

    #[test]
    fn a_job_that_came_before_the_list_ends_the_registration() {
        let phases = [(PhaseKind::Minting, 50), (PhaseKind::Busy, 400)];
        assert_eq!(
            values(&ended(&phases, Some(1)))[0],
            (Measure::Registration, 350)
        );
    }

    #[test]
    fn a_container_that_failed_to_boot_gives_none() {
        let phases = [(PhaseKind::Booting, 0), (PhaseKind::Retiring, 60_000)];
        assert_eq!(values(&ended(&phases, None)), []);
    }
}
