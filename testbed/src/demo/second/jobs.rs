//! The jobs of the second act, and the pools that serve them.

use anyhow::Result;
use github_sim::{JobSpec, JobView};

use crate::sim::pool_job;

/// Maximum number of runners of all pools together.
pub(super) const BUDGET: usize = 4;
/// Number of jobs that the scale set gets, half of them from each repository.
pub(super) const BURST: usize = 60;
/// Number of jobs of the burst that are over when the others are queued.
pub(super) const EARLIER: usize = 15;
/// Number of jobs that wait when the job with a priority is queued.
pub(super) const NIGHTLY: usize = 4;
/// Number of all jobs: the first one wakes a pool.
pub(super) const ALL: usize = 1 + BURST + NIGHTLY + 1;

/// Pool with a scale set.
pub(super) const BUILD: &str = "build";
/// Pool that deliveries wake, for jobs without a priority.
pub(super) const LATER: &str = "nightly";
/// Pool that deliveries wake, for the job with a priority.
pub(super) const DEPLOY: &str = "deploy";

pub(super) const REPOSITORIES: [&str; 2] = ["acme/widgets", "acme/gadgets"];

fn job(name: &str, pool: &str, repository: &str) -> Result<JobSpec> {
    Ok(JobSpec {
        scope: Some(repository.parse()?),
        ..pool_job(name, pool, "sleep 0.2")
    })
}

/// Returns the job that wakes a pool.
pub(super) fn first() -> Result<JobSpec> {
    job("first", DEPLOY, REPOSITORIES[0])
}

/// Returns the jobs of the scale set, of each repository in turns.
pub(super) fn burst() -> Result<Vec<JobSpec>> {
    let build = |number: usize| {
        let repository = REPOSITORIES[number % REPOSITORIES.len()];
        job(&format!("build-{}", number + 1), BUILD, repository)
    };
    (0..BURST).map(build).collect()
}

/// Returns the jobs that are queued during the burst, the one with a priority last.
pub(super) fn late() -> Result<Vec<JobSpec>> {
    let nightly = |number| job(&format!("nightly-{number}"), LATER, REPOSITORIES[1]);
    let deploy = job("deploy", DEPLOY, REPOSITORIES[0]);
    (1..=NIGHTLY).map(nightly).chain([deploy]).collect()
}

/// Returns the pool of a job: its last label.
pub(super) fn pool_of(job: &JobView) -> &str {
    job.labels.last().map_or("-", String::as_str)
}

pub(super) fn waited(job: &JobView) -> u64 {
    job.started_at
        .map_or(0, |start| start.saturating_sub(job.created_at))
}
