//! The job table: the jobs of GitHub's queue, as far as events tell.
//!
//! - `counts`: counts by key
//! - `job`: one job, from events in any order
//! - `matching`: the pool that serves a job
//! - `queue`: the waiting jobs in their order
//! - `read`: the jobs to read from GitHub's API
//! - `table`: all jobs that are known, bounded
//! - `wait`: the reason for which a job waits

mod counts;
mod job;
mod matching;
mod queue;
mod read;
mod table;
mod wait;

pub use job::{
    Conclusion, Evidence, JobDescription, JobEnd, JobKey, JobReading, JobSource, JobStage, KnownJob,
};
pub use matching::{Fit, PoolLabels, fits};
pub(crate) use queue::{JobQueue, Turn};
pub use read::{due_readings, missing_jobs};
pub use table::{
    JobGroup, JobPlace, JobTable, MAX_ENDED_JOBS, MAX_LIVE_JOBS, PoolDemand, TableEntry,
};
pub use wait::{WaitReason, wait_reason};

#[cfg(test)]
mod tests;
