//! Jobs and times of the runners on record.

use std::collections::BTreeMap;

use super::arrivals::{Arrival, Arrivals, Span};
use super::times::{Samples, Times};
use crate::config::Config;
use crate::pool::{PhaseKind, VerdictRecord};

/// Minimum number of runners whose times count.
const ENOUGH: usize = 5;
/// Time for which a runner listened, in milliseconds, up to which its job may have waited for it.
const SOON_MS: u64 = 5_000;

/// Jobs and times that the records tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// The jobs, each at the time at which it started.
    pub arrivals: Arrivals,
    /// The times of the runners.
    pub times: Times,
    /// Number of jobs that came as soon as their runner listened. They may have waited in GitHub's queue.
    pub may_have_waited: usize,
    /// Number of jobs of pools that are not configured any more, by pool.
    pub unknown: BTreeMap<String, usize>,
}

/// Returns what the records of runners tell. Times that too few runners tell are those of `defaults`.
#[must_use]
pub fn past(records: &[VerdictRecord], config: &Config, defaults: Times) -> Past {
    let times = times(records, defaults);
    let remove_ms = times.remove.median_ms();
    let mut jobs: Vec<(u64, Arrival)> = Vec::new();
    let (mut waited, mut unknown) = (0, BTreeMap::new());
    let mut end_unix_ms = 0;
    for record in records {
        let Some(job_ms) = record.job_ms else {
            continue;
        };
        if config.pool(&record.slot.pool).is_none() {
            let pool = record.slot.pool.to_string();
            *unknown.entry(pool).or_default() += 1;
            continue;
        }
        waited += usize::from(may_have_waited(record));
        end_unix_ms = end_unix_ms.max(record.ended_unix_ms);
        let started = record.ended_unix_ms.saturating_sub(job_ms);
        let note = record.job.as_ref();
        let repository = note.map(|note| note.repository.clone());
        let arrival = Arrival {
            at_ms: 0,
            pool: record.slot.pool.clone(),
            repository: repository.unwrap_or_default(),
            // The record's time ends when the container is gone.
            duration_ms: job_ms.saturating_sub(remove_ms).max(1),
            memory_bytes: record.memory_peak_bytes,
        };
        jobs.push((started, arrival));
    }
    jobs.sort_by_key(|(started, _)| *started);
    let start_unix_ms = jobs.first().map_or(0, |(started, _)| *started);
    let jobs = jobs.into_iter().map(|(started, job)| Arrival {
        at_ms: started - start_unix_ms,
        ..job
    });
    Past {
        arrivals: Arrivals {
            jobs: jobs.collect(),
            span: Span::Ongoing(end_unix_ms.saturating_sub(start_unix_ms)),
            start_unix_ms,
        },
        times,
        may_have_waited: waited,
        unknown,
    }
}

/// Returns the time from a runner's start until it entered a phase, in milliseconds.
fn after(record: &VerdictRecord, phase: PhaseKind) -> Option<u64> {
    let entry = record.phases.iter().find(|entry| entry.phase == phase)?;
    Some(entry.after_ms)
}

/// Returns the times of the runners on record.
fn times(records: &[VerdictRecord], defaults: Times) -> Times {
    let enough = |times: Vec<u64>| Some(times).filter(|times| times.len() >= ENOUGH);
    let boots = enough(records.iter().filter_map(boot_ms).collect());
    let registrations = enough(records.iter().filter_map(registration_ms).collect());
    Times {
        boot: boots.and_then(Samples::of_history).unwrap_or(defaults.boot),
        register: registrations
            .and_then(Samples::of_history)
            .unwrap_or(defaults.register),
        start_job: defaults.start_job,
        remove: defaults.remove,
    }
}

fn boot_ms(record: &VerdictRecord) -> Option<u64> {
    let booting = after(record, PhaseKind::Booting)?;
    after(record, PhaseKind::Spare)?.checked_sub(booting)
}

fn registration_ms(record: &VerdictRecord) -> Option<u64> {
    let minting = after(record, PhaseKind::Minting)?;
    record.listening_after_ms?.checked_sub(minting)
}

/// Returns true if the job came so soon that it may have waited for the runner.
fn may_have_waited(record: &VerdictRecord) -> bool {
    let busy = after(record, PhaseKind::Busy);
    let idle_ms = busy.zip(record.listening_after_ms);
    idle_ms.is_some_and(|(busy, listening)| busy.saturating_sub(listening) <= SOON_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;
    use crate::pool::{PhaseEntry, ResourceUse, Verdict};
    use crate::sizing::Source;

    /// A runner that booted in 300 ms, was a spare, and listened `registered_ms` after the mint began.
    fn record(slot: &str, ended_unix_ms: u64, job_ms: u64, registered_ms: u64) -> VerdictRecord {
        let phase = |phase, after_ms| PhaseEntry { phase, after_ms };
        VerdictRecord {
            slot: slot.parse().unwrap(),
            verdict: Verdict::JobDone,
            runner: None,
            runner_id: None,
            job: None,
            ended_unix_ms,
            asked_after_ms: Some(300),
            listening_after_ms: Some(5_300 + registered_ms),
            lived_ms: 5_300 + registered_ms + job_ms,
            job_ms: Some(job_ms),
            result: None,
            exit: None,
            last_line: None,
            memory_peak_bytes: Some(1 << 30),
            oom_kills: 0,
            invocation: None,
            phases: vec![
                phase(PhaseKind::Booting, 0),
                phase(PhaseKind::Spare, 300),
                phase(PhaseKind::Minting, 5_300),
                phase(PhaseKind::Registering, 5_400),
                phase(PhaseKind::Busy, 5_300 + registered_ms),
            ],
            cpu_ms: None,
            usage: ResourceUse::default(),
            generation: None,
            version: None,
        }
    }

    #[test]
    fn jobs_come_when_they_started_on_record() {
        let mut config = testing::config();
        config.pools.push(testing::pool("gpu", 9));
        let mut idle = record("ci-1", 1_000_000, 60_000, 900);
        idle.listening_after_ms = Some(100);
        let mut spare = record("ci-3", 900_000, 1, 900);
        (spare.job_ms, spare.verdict) = (None, Verdict::SpareAged);
        let old = record("old-1", 990_000, 1_000, 900);
        let records = [record("gpu-2", 990_000, 30_000, 900), idle, spare, old];
        let found = past(&records, &config, Times::default());
        let job = |at_ms, pool: &str, duration_ms| Arrival {
            at_ms,
            pool: pool.parse().unwrap(),
            repository: String::new(),
            duration_ms,
            memory_bytes: Some(1 << 30),
        };
        // The removal is a part of the time on record.
        assert_eq!(
            found.arrivals.jobs,
            [job(0, "ci", 59_000), job(20_000, "gpu", 29_000)]
        );
        assert_eq!(found.arrivals.start_unix_ms, 940_000);
        assert_eq!(found.arrivals.span, Span::Ongoing(60_000));
        assert_eq!(found.may_have_waited, 1);
        assert_eq!(found.unknown, BTreeMap::from([("old".to_owned(), 1)]));
        // Three boots and registrations are too few.
        assert_eq!(found.times, Times::default());
    }

    #[test]
    fn boots_and_registrations_are_the_times() {
        let config = testing::config();
        let registered = [1_500, 2_100, 1_400, 1_700, 1_600];
        let record = |ms: &u64| record("ci-1", 1_000_000, 9_000, *ms);
        let records: Vec<_> = registered.iter().map(record).collect();
        let found = past(&records, &config, Times::default()).times;
        let median = |samples: &Samples| (samples.median_ms(), samples.source);
        assert_eq!(median(&found.boot), (300, Source::History));
        assert_eq!(median(&found.register), (1_600, Source::History));
        assert_eq!(found.remove, Times::default().remove);
    }
}
