//! Jobs at random times, from the kinds of a workload file.

use std::f64::consts::TAU;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::arrivals::{Arrival, Arrivals, Span};
use crate::config::{Config, JobKind, TraceJob, Workload};
use crate::pool::PoolName;

/// Maximum number of jobs. A simulation of so many takes minutes.
const MAX_JOBS: usize = 200_000;

/// Beginning of a simulated week: Monday, 2026-01-05, 00:00 UTC.
const MONDAY_UNIX_MS: u64 = 1_767_571_200_000;

/// 95th percentile of the normal distribution.
const Z95: f64 = 1.644_853_6;

/// More jobs than a simulation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the workload has more than {MAX_JOBS} jobs; give a shorter --for")]
pub struct TooManyJobs;

/// Returns the jobs of a workload that come within `span`. Equal seeds give equal jobs.
pub fn generate(
    workload: &Workload,
    config: &Config,
    span: Duration,
    seed: u64,
) -> Result<Arrivals, TooManyJobs> {
    let (mut jobs, span) = match workload {
        Workload::Kinds(kinds) => {
            let mut jobs = Vec::new();
            for (stream, kind) in (1_u64..).zip(kinds) {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                // A further kind changes nothing about the others.
                random.set_stream(stream);
                add_kind(&mut jobs, kind, config, span, &mut random)?;
            }
            (jobs, Span::Ongoing(millis(span)))
        }
        Workload::Trace(trace) => {
            let jobs = trace.iter().map(|job| of_trace(job, config));
            (jobs.collect(), Span::Once)
        }
    };
    if jobs.len() > MAX_JOBS {
        return Err(TooManyJobs);
    }
    jobs.sort_by_key(|job: &Arrival| job.at_ms);
    Ok(Arrivals {
        jobs,
        span,
        start_unix_ms: MONDAY_UNIX_MS,
    })
}

fn of_trace(job: &TraceJob, config: &Config) -> Arrival {
    Arrival {
        at_ms: millis(job.after),
        pool: job.pool.clone(),
        repository: repository(config, &job.pool, "trace"),
        duration_ms: millis(job.duration),
        memory_bytes: job.memory.map(|memory| memory.0),
    }
}

/// Adds the jobs of a kind. Bursts come independently of each other, and the number of jobs of a burst is geometric.
fn add_kind(
    jobs: &mut Vec<Arrival>,
    kind: &JobKind,
    config: &Config,
    span: Duration,
    random: &mut ChaCha8Rng,
) -> Result<(), TooManyJobs> {
    let repository = repository(config, &kind.pool, &kind.name);
    let between_bursts = 3600.0 * kind.burst / kind.per_hour;
    let mut at = exponential(between_bursts, random);
    while at < span.as_secs_f64() {
        loop {
            jobs.push(Arrival {
                at_ms: millis(Duration::from_secs_f64(at)),
                pool: kind.pool.clone(),
                repository: repository.clone(),
                duration_ms: duration_ms(kind, random),
                memory_bytes: kind.memory.map(|memory| memory.0),
            });
            if jobs.len() > MAX_JOBS {
                return Err(TooManyJobs);
            }
            if random.random::<f64>() * kind.burst < 1.0 {
                break;
            }
        }
        at += exponential(between_bursts, random);
    }
    Ok(())
}

/// Returns a repository of the pool's scope, as the rules for jobs of a repository need one.
fn repository(config: &Config, pool: &PoolName, name: &str) -> String {
    let pool = config.pool(pool);
    let scope = pool.map_or("", |pool| pool.scope.parts().1);
    if scope.contains('/') {
        scope.to_owned()
    } else {
        format!("{scope}/{name}")
    }
}

fn exponential(mean: f64, random: &mut ChaCha8Rng) -> f64 {
    // 1 - u is never 0.
    -(1.0 - random.random::<f64>()).ln() * mean
}

/// Returns the time that a job runs. Run times have a long tail, and the log-normal distribution is the plain one
/// with a given median and a given 95th percentile.
fn duration_ms(kind: &JobKind, random: &mut ChaCha8Rng) -> u64 {
    if kind.duration_p95 == kind.duration {
        return millis(kind.duration);
    }
    let sigma = kind.duration_p95.div_duration_f64(kind.duration).ln() / Z95;
    // Box and Muller's transformation.
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    let normal = radius * (TAU * random.random::<f64>()).cos();
    millis(kind.duration.mul_f64((sigma * normal).exp())).max(1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
