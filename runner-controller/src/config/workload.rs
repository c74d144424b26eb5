//! A workload file: the jobs that `size` simulates.

use std::time::Duration;

use super::units::ByteSize;
use crate::pool::PoolName;

/// Jobs of a workload file.
#[derive(Debug, Clone, PartialEq)]
pub enum Workload {
    /// Kinds of jobs, which come at random times.
    Kinds(Vec<JobKind>),
    /// Single jobs at known times.
    Trace(Vec<TraceJob>),
}

/// A table `[jobs.<name>]`: jobs of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct JobKind {
    /// Name of the kind.
    pub name: String,
    /// Pool whose labels the jobs have.
    pub pool: PoolName,
    /// Mean number of jobs in an hour.
    pub per_hour: f64,
    /// Median of the time that a job runs.
    pub duration: Duration,
    /// Time that 95 % of the jobs do not exceed. If it is the median, all jobs take the same time.
    pub duration_p95: Duration,
    /// Mean number of jobs that are queued at the same moment.
    pub burst: f64,
    /// Memory that a job needs, if it is known.
    pub memory: Option<ByteSize>,
}

/// A table `[[trace]]`: one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceJob {
    /// Pool whose labels the job has.
    pub pool: PoolName,
    /// Time from the beginning until it is queued.
    pub after: Duration,
    /// Time that it runs.
    pub duration: Duration,
    /// Memory that it needs, if it is known.
    pub memory: Option<ByteSize>,
}
