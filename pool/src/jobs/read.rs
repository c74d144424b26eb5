//! The jobs that are to be read from GitHub's API, because deliveries may be lost or were never sent.

use std::collections::BTreeSet;

use super::job::{JobKey, JobSource, JobStage, KnownJob};

/// Returns the jobs that are due at `unix_ms`, at most `max`, the one that has been due longest first.
#[must_use]
pub fn due_readings(jobs: &[KnownJob], unix_ms: u64, max: usize) -> Vec<&KnownJob> {
    let due = jobs.iter().filter_map(|job| {
        let due = job.read_due_unix_ms()?;
        (due <= unix_ms).then_some((due, job))
    });
    let mut due: Vec<_> = due.collect();
    due.sort_by_key(|(due, job)| (*due, &job.key));
    due.into_iter().take(max).map(|(_, job)| job).collect()
}

/// Returns the jobs that wait in a repository, as far as is known, and that a reading of its queue does not have,
/// at most `max`. A reading may miss a job that was queued meanwhile, so absence alone ends none of them.
#[must_use]
pub fn missing_jobs<'j>(
    jobs: &'j [KnownJob],
    repository: &str,
    reading: &BTreeSet<JobKey>,
    max: usize,
) -> Vec<&'j KnownJob> {
    let of_repository = |job: &&KnownJob| {
        job.description()
            .repository
            .eq_ignore_ascii_case(repository)
    };
    let is_read = |job: &&KnownJob| job.key.source == JobSource::Webhook;
    let waiting = jobs.iter().filter(is_read);
    let waiting = waiting.filter(|job| job.stage() == JobStage::Queued);
    let missing = waiting
        .filter(of_repository)
        .filter(|job| !reading.contains(&job.key));
    missing.take(max).collect()
}
