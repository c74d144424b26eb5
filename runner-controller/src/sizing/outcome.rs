//! The outcome of a simulation: utilisation and waits.

use std::collections::BTreeMap;

use super::arrivals::{Arrival, Arrivals, Span};
use super::host::Host;
use super::setup::{Setup, WARM_UP_MS};
use crate::config::PoolConfig;
use crate::pool::{PoolName, SlotId};

/// Growth of the number of waiting jobs from one quarter of the time to the next, in percent, that shows that the
/// queue only grows. A queue that grows evenly has 40 percent from the third to the last quarter.
const GROWTH_PERCENT: u128 = 120;

/// A job that a runner took.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) at_ms: u64,
    pub(super) pool: PoolName,
    pub(super) runner: Option<String>,
    pub(super) end_ms: Option<u64>,
}

/// The course of a simulation.
#[derive(Debug)]
pub(super) struct Course {
    jobs: Vec<Option<Taken>>,
    /// Number of jobs that a runner took.
    pub(super) taken: usize,
    /// Number of jobs that have ended.
    pub(super) ended: usize,
    /// Number of jobs that ended because their runner was ended.
    pub(super) cut_short: usize,
    /// Largest number of runners of each pool at once on one host.
    peaks: BTreeMap<PoolName, usize>,
    job_memory_peak_bytes: u64,
    /// Time in which the memory of each host ran short, and the beginning of such a time.
    closed: BTreeMap<usize, (u64, Option<u64>)>,
    /// End of the simulation.
    pub(super) end_ms: u64,
}

impl Course {
    pub(super) fn new(jobs: usize) -> Self {
        Self {
            jobs: vec![None; jobs],
            taken: 0,
            ended: 0,
            cut_short: 0,
            peaks: BTreeMap::new(),
            job_memory_peak_bytes: 0,
            closed: BTreeMap::new(),
            end_ms: 0,
        }
    }

    pub(super) fn of(&self, job: usize) -> Option<&Taken> {
        self.jobs.get(job)?.as_ref()
    }

    pub(super) fn has_ended(&self, job: usize) -> bool {
        self.of(job).is_some_and(|taken| taken.end_ms.is_some())
    }

    pub(super) fn take(&mut self, job: usize, slot: &SlotId, runner: Option<String>, at_ms: u64) {
        self.taken += 1;
        if let Some(place) = self.jobs.get_mut(job) {
            *place = Some(Taken {
                at_ms,
                pool: slot.pool.clone(),
                runner,
                end_ms: None,
            });
        }
    }

    pub(super) fn end(&mut self, job: usize, at_ms: u64) {
        self.ended += 1;
        if let Some(Some(taken)) = self.jobs.get_mut(job) {
            taken.end_ms = Some(at_ms);
        }
    }

    /// Notes what a host has now.
    pub(super) fn note(&mut self, index: usize, host: &Host<'_>, now_ms: u64) {
        for pool in host.pools.iter() {
            let name = &pool.spec.name;
            match self.peaks.get_mut(name) {
                Some(peak) => *peak = (*peak).max(pool.runners.len()),
                None => drop(self.peaks.insert(name.clone(), pool.runners.len())),
            }
        }
        let peak = &mut self.job_memory_peak_bytes;
        *peak = (*peak).max(host.job_memory_peak_bytes);
        let (total, since) = self.closed.entry(index).or_default();
        match (host.is_closed(), *since) {
            (true, None) => *since = Some(now_ms),
            (false, Some(begin)) => {
                *total += now_ms - begin;
                *since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
}

/// Outcome of a simulation.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The pools, in their order.
    pub pools: Vec<PoolOutcome>,
    /// Time over which utilisation and load are counted, in milliseconds.
    pub span_ms: u64,
    /// Number of jobs that were cut short, by `timeouts.job`.
    pub cut_short: usize,
    /// Number of jobs that need more memory than `limits.memory` of their pool.
    pub too_large: usize,
    /// Largest amount of memory that the runners of one host used at once.
    pub memory_peak_bytes: u64,
    /// Time in which a host started no runner because its memory ran short, in milliseconds.
    pub closed_ms: u64,
}

/// Outcome for one pool: the jobs with its labels, and its runners.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolOutcome {
    /// The pool.
    pub pool: PoolName,
    /// Number of jobs.
    pub jobs: usize,
    /// Maximum number of its runners on all hosts.
    pub runners: usize,
    /// Largest number of its runners at once on one host.
    pub peak_runners: usize,
    /// Part of the runners that had a job, on average.
    pub utilisation: f64,
    /// Part of the runners that the jobs need, on average. Above 1, the pool never catches up.
    pub load: f64,
    /// Waits of the jobs in milliseconds, the shortest one first.
    pub waits_ms: Vec<u64>,
    /// Number of jobs that waited when the last one came.
    pub waiting_at_end: usize,
    /// True if the number of waiting jobs only grows.
    pub never_catches_up: bool,
}

impl PoolOutcome {
    /// Returns the mean wait in milliseconds.
    #[must_use]
    pub fn mean_wait_ms(&self) -> u64 {
        let total: u64 = self.waits_ms.iter().sum();
        total / (self.waits_ms.len() as u64).max(1)
    }

    /// Returns the wait that this percentage of the jobs does not exceed, in milliseconds.
    #[must_use]
    pub fn wait_ms(&self, percent: usize) -> u64 {
        let rank = (self.waits_ms.len() * percent).div_ceil(100);
        let wait = self.waits_ms.get(rank.saturating_sub(1));
        wait.copied().unwrap_or_default()
    }
}

impl Outcome {
    pub(super) fn of(setup: &Setup<'_>, arrivals: &Arrivals, course: Course) -> Self {
        let span_ms = match arrivals.span {
            Span::Ongoing(span) => span,
            Span::Once => {
                let ends = course
                    .jobs
                    .iter()
                    .flatten()
                    .filter_map(|taken| taken.end_ms);
                let first = arrivals.jobs.first().map_or(0, |job| job.at_ms);
                let last = ends.max().unwrap_or(course.end_ms);
                last.saturating_sub(WARM_UP_MS + first)
            }
        };
        let closed = course.closed.values();
        let closed = closed.map(|(total, since)| {
            total + since.map_or(0, |begin| course.end_ms.saturating_sub(begin))
        });
        let limit = |pool: &PoolName| setup.config.pool(pool).map(|pool| pool.limits.memory.0);
        let too_large = arrivals.jobs.iter().filter(|job| {
            let needed = job.memory_bytes;
            needed
                .zip(limit(&job.pool))
                .is_some_and(|(needed, limit)| needed > limit)
        });
        let pools = setup.config.pools.iter();
        let pools = pools.map(|pool| pool_outcome(&pool.name, setup, arrivals, &course, span_ms));
        Self {
            pools: pools.collect(),
            span_ms,
            cut_short: course.cut_short,
            too_large: too_large.count(),
            memory_peak_bytes: course.job_memory_peak_bytes,
            closed_ms: closed.sum(),
        }
    }

    /// Returns the outcome for a pool.
    #[must_use]
    pub fn pool(&self, name: &PoolName) -> Option<&PoolOutcome> {
        self.pools.iter().find(|pool| pool.pool == *name)
    }
}

fn pool_outcome(
    name: &PoolName,
    setup: &Setup<'_>,
    arrivals: &Arrivals,
    course: &Course,
    span_ms: u64,
) -> PoolOutcome {
    let begin_ms = match arrivals.span {
        Span::Ongoing(_) => WARM_UP_MS,
        Span::Once => WARM_UP_MS + arrivals.jobs.first().map_or(0, |job| job.at_ms),
    };
    let end_ms = begin_ms + span_ms;
    let jobs = arrivals.jobs.iter().zip(&course.jobs);
    let own: Vec<(&Arrival, &Option<Taken>)> = jobs.filter(|(job, _)| job.pool == *name).collect();
    let wait = |(job, taken): &(&Arrival, &Option<Taken>)| {
        let until = taken.as_ref().map_or(course.end_ms, |taken| taken.at_ms);
        (WARM_UP_MS + job.at_ms, until)
    };
    let waits: Vec<(u64, u64)> = own.iter().map(wait).collect();
    let mut waits_ms: Vec<u64> = waits
        .iter()
        .map(|(from, until)| until.saturating_sub(*from))
        .collect();
    waits_ms.sort_unstable();
    let numbers = setup.numbers.get(name).copied();
    let numbers = numbers.or_else(|| setup.config.pool(name).map(PoolConfig::numbers));
    let runners = numbers.map_or(0, |numbers| usize::from(numbers.max_runners)) * setup.hosts;
    let room = u128::from(span_ms) * runners as u128;
    let taken = course
        .jobs
        .iter()
        .flatten()
        .filter(|taken| taken.pool == *name);
    let busy: u128 = taken
        .map(|taken| {
            let end = taken.end_ms.unwrap_or(course.end_ms).min(end_ms);
            u128::from(end.saturating_sub(taken.at_ms.max(begin_ms)))
        })
        .sum();
    let needed: u128 = own.iter().map(|(job, _)| u128::from(job.duration_ms)).sum();
    let is_ongoing = matches!(arrivals.span, Span::Ongoing(_));
    let last_ms = match arrivals.span {
        Span::Ongoing(span) => begin_ms + span,
        Span::Once => WARM_UP_MS + arrivals.jobs.last().map_or(0, |job| job.at_ms),
    };
    let load = share(needed, room);
    PoolOutcome {
        pool: name.clone(),
        jobs: own.len(),
        runners,
        peak_runners: course.peaks.get(name).copied().unwrap_or_default(),
        utilisation: share(busy, room),
        load,
        waiting_at_end: waits.iter().filter(|(_, until)| *until > last_ms).count(),
        never_catches_up: is_ongoing && (load >= 1.0 || only_grows(&waits, span_ms, runners)),
        waits_ms,
    }
}

/// Returns true if the number of waiting jobs grows from each quarter of the time to the next, beyond the number of
/// runners.
fn only_grows(waits: &[(u64, u64)], span_ms: u64, runners: usize) -> bool {
    let quarter_ms = (span_ms / 4).max(1);
    let waiting = |quarter: u64| -> u128 {
        let begin = WARM_UP_MS + quarter * quarter_ms;
        let end = begin + quarter_ms;
        let within = waits
            .iter()
            .map(|(from, until)| u128::from((*until).min(end).saturating_sub((*from).max(begin))));
        within.sum()
    };
    let quarters: Vec<u128> = (0..4).map(waiting).collect();
    let grows = quarters
        .windows(2)
        .all(|pair| pair[1] * 100 >= pair[0] * GROWTH_PERCENT);
    let last = quarters.last().copied().unwrap_or_default();
    grows && last > u128::from(quarter_ms) * (runners.max(1) as u128)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the shares are printed with three digits"
)]
fn share(part: u128, whole: u128) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
