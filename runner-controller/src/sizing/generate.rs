//! Jobs at random times, from the kinds of a workload file.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, Exp, Geometric, LogNormal};

use super::arrivals::{Arrival, Arrivals, Span};
use crate::config::{Config, JobKind, TraceJob, Workload};
use crate::pool::PoolName;

/// Maximum number of jobs. A simulation of so many takes minutes.
const MAX_JOBS: usize = 200_000;

/// Beginning of a simulated week: Monday, 2026-01-05, 00:00 UTC.
const MONDAY_UNIX_MS: u64 = 1_767_571_200_000;

/// 95th percentile of the normal distribution.
const Z95: f64 = 1.644_853_6;

/// Failure to make jobs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// More jobs than a simulation takes.
    #[error("the workload has more than {MAX_JOBS} jobs; give a shorter --for")]
    TooManyJobs,
    /// A kind of jobs has numbers that a workload file cannot have.
    #[error("cannot draw jobs of the kind {0}: per_hour, burst and both durations must be above 0")]
    Kind(String),
}

/// Returns the jobs of a workload that come within `span`. Equal seeds give equal jobs.
pub fn generate(
    workload: &Workload,
    config: &Config,
    span: Duration,
    seed: u64,
) -> Result<Arrivals, GenerateError> {
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
        return Err(GenerateError::TooManyJobs);
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
) -> Result<(), GenerateError> {
    let repository = repository(config, &kind.pool, &kind.name);
    let Some(draws) = Draws::of(kind) else {
        return Err(GenerateError::Kind(kind.name.clone()));
    };
    let mut at = draws.between_bursts.sample(random);
    while at < span.as_secs_f64() {
        for _ in 0..=draws.more_of_burst.sample(random) {
            jobs.push(Arrival {
                at_ms: millis(Duration::from_secs_f64(at)),
                pool: kind.pool.clone(),
                repository: repository.clone(),
                duration_ms: draws.duration_ms(random),
                memory_bytes: kind.memory.map(|memory| memory.0),
            });
            if jobs.len() > MAX_JOBS {
                return Err(GenerateError::TooManyJobs);
            }
        }
        at += draws.between_bursts.sample(random);
    }
    Ok(())
}

/// Distributions of a kind of jobs.
struct Draws {
    /// Seconds between two bursts.
    between_bursts: Exp<f64>,
    /// Jobs of a burst beside its first one.
    more_of_burst: Geometric,
    /// Run time of a job, in milliseconds. Run times have a long tail, and the log-normal distribution is the plain one
    /// with a given median and a given 95th percentile.
    duration_ms: LogNormal<f64>,
}

impl Draws {
    fn of(kind: &JobKind) -> Option<Self> {
        let bursts_per_second = kind.per_hour / kind.burst / 3600.0;
        let median_ms = kind.duration.div_duration_f64(Duration::from_millis(1));
        let sigma = kind.duration_p95.div_duration_f64(kind.duration).ln() / Z95;
        Some(Self {
            between_bursts: Exp::new(bursts_per_second).ok()?,
            more_of_burst: Geometric::new(kind.burst.recip()).ok()?,
            duration_ms: LogNormal::new(median_ms.ln(), sigma).ok()?,
        })
    }

    fn duration_ms(&self, random: &mut ChaCha8Rng) -> u64 {
        let ms = self.duration_ms.sample(random).round().max(1.0);
        // A time that no Duration holds is longer than each timeout.
        Duration::try_from_secs_f64(ms / 1000.0).map_or(u64::MAX, millis)
    }
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
