//! Reads jobs from GitHub's API: for pools whose demand is a repository's queue, and because deliveries may be late or
//! lost, and some are never sent.
//!
//! A job that waits is read again from time to time, and the queue of a repository as a whole. A reading that fails
//! changes nothing: what is known of the jobs stays. The core says which jobs are due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use crate::pool::{
    Conclusion, JobEnd, JobKey, JobReading, JobStage, KnownJob, ScopeId, due_readings, missing_jobs,
};
use crate::status::QueueStatus;
use crate::world::{Event, Failure as _, JobRecords, Queue, ReadJob, RegistryError, chain};

/// Interval between looks at what is due.
const TICK: Duration = Duration::from_secs(10);
/// Interval between readings of a repository's queue beside deliveries, which bring most news.
pub const BESIDE_DELIVERIES: Duration = Duration::from_mins(5);
/// Interval between readings of a repository's queue that nothing else tells of. An idle repository then costs 240
/// calls an hour, none of which counts for the quota.
pub const FOR_DEMAND: Duration = Duration::from_secs(30);
/// Minimum interval between such readings. A job that starts here is a reason to read at once, because a runner would
/// start for it if it still seemed to wait at its end.
const AT_LEAST: Duration = Duration::from_secs(5);
/// Maximum number of jobs of a scope that are read one by one at a look, which is 60 calls a minute.
const AT_ONCE: usize = 10;
/// Pause after a reading that failed for a reason that passes.
const RETRY: Duration = Duration::from_mins(1);
/// Pause after a reading that GitHub refused, until an operator changed something.
const REFUSED: Duration = Duration::from_hours(1);

/// The jobs at GitHub in one scope, and what became of reading them.
pub struct Source<Q> {
    queue: Q,
    interval: Duration,
    /// Time of the last reading of the whole queue.
    read_at: Option<Instant>,
    /// Time of the next one; `None` if the scope is not a repository.
    due_at: Option<Instant>,
    resume_at: Instant,
    status: QueueStatus,
}

impl<Q: Queue> Source<Q> {
    /// Returns a source that has read nothing. The queue of a repository is read once in an interval.
    #[must_use]
    pub fn new(queue: Q, scope: &ScopeId, interval: Duration) -> Self {
        let now = Instant::now();
        Self {
            due_at: queue.repository().map(|_| now),
            queue,
            interval,
            read_at: None,
            resume_at: now,
            status: QueueStatus {
                scope: scope.to_string(),
                ..QueueStatus::default()
            },
        }
    }

    /// Lets the queue be read soon, if it is the only source of the demand.
    fn hasten(&mut self) {
        let now = Instant::now();
        let earliest = self.read_at.map_or(now, |at| now.max(at + AT_LEAST));
        if self.interval <= FOR_DEMAND {
            self.due_at = self.due_at.map(|due| due.min(earliest));
        }
    }

    /// Returns the time at which the queue can be read next.
    fn next_at(&self) -> Option<Instant> {
        Some(self.due_at?.max(self.resume_at))
    }

    fn succeeded(&mut self, unix_ms: u64) {
        self.status.last_unix_ms = Some(unix_ms);
        if self.status.error.take().is_some() {
            let scope = &self.status.scope;
            info!(scope, "reading jobs of {scope} from GitHub's API again");
        }
    }

    fn failed(&mut self, error: &RegistryError, now: Instant) {
        let pause = if error.is_transient() { RETRY } else { REFUSED };
        self.resume_at = now + error.retry_after.unwrap_or_default().max(pause);
        let text = error.to_string();
        if self.status.error.as_ref() != Some(&text) {
            let scope = &self.status.scope;
            warn!(
                scope,
                %error,
                "cannot read jobs of {scope} from GitHub's API: {error}; the jobs that were known stay"
            );
        }
        self.status.error = Some(text);
    }
}

/// Reads the jobs of all scopes.
pub struct Reader<Q, R> {
    /// The scopes.
    pub sources: BTreeMap<ScopeId, Source<Q>>,
    /// Record of the jobs.
    pub records: R,
    /// The loop, which learns of each job that is news.
    pub events: mpsc::Sender<Event>,
    /// Clock in milliseconds since 1970.
    pub unix_ms: fn() -> u64,
}

impl<Q: Queue, R: JobRecords> Reader<Q, R> {
    /// Reads what is due until the receiver of events is gone. `job_started` tells that a job started here.
    pub async fn run(mut self, job_started: Arc<Notify>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.events.is_closed() {
            let next = self.sources.values().filter_map(Source::next_at).min();
            tokio::select! {
                _ = ticks.tick() => {}
                () = job_started.notified() => {
                    self.sources.values_mut().for_each(Source::hasten);
                    continue;
                }
                () = sleep_until(next) => {}
            }
            self.look().await;
        }
    }

    /// Reads what is due now.
    async fn look(&mut self) {
        let known = match self.records.live_jobs().await {
            Ok(jobs) => jobs,
            Err(error) => {
                let error = chain(&error);
                warn!(error, "cannot read the jobs on record: {error}");
                return;
            }
        };
        let (records, events, unix_ms) = (&self.records, &self.events, self.unix_ms);
        for (scope, source) in &mut self.sources {
            let now = Instant::now();
            if now < source.resume_at {
                continue;
            }
            let known = known.iter().filter(|job| job.key.scope == *scope);
            let known: Vec<KnownJob> = known.cloned().collect();
            let before = source.status.clone();
            match read(source, &known, records, events, unix_ms).await {
                Ok(false) => {}
                Ok(true) => source.succeeded(unix_ms()),
                Err(error) => source.failed(&error, now),
            }
            if source.status != before {
                let _ = events.send(Event::Queue(source.status.clone())).await;
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Reads what is due in a scope. Returns true if anything was.
async fn read<Q: Queue, R: JobRecords>(
    source: &mut Source<Q>,
    known: &[KnownJob],
    records: &R,
    events: &mpsc::Sender<Event>,
    unix_ms: fn() -> u64,
) -> Result<bool, RegistryError> {
    let now = Instant::now();
    let mut due = due_readings(known, unix_ms(), AT_ONCE);
    let mut is_due = !due.is_empty();
    if source.due_at.is_some_and(|due| due <= now)
        && let Some(repository) = source.queue.repository()
    {
        let repository = repository.to_owned();
        let reading = source.queue.jobs(unix_ms()).await?;
        source.read_at = Some(now);
        source.due_at = Some(now + source.interval);
        source.status.runs = Some(reading.runs as u64);
        source.status.has_more_runs = reading.has_more_runs;
        let found: BTreeSet<JobKey> = reading.jobs.iter().map(|job| job.key.clone()).collect();
        // The reading is newer than what was due.
        due.retain(|job| !found.contains(&job.key));
        let missing = missing_jobs(known, &repository, &found, AT_ONCE);
        let missing = missing
            .into_iter()
            .filter(|job| due.iter().all(|due| due.key != job.key));
        due.extend(missing.collect::<Vec<_>>());
        for job in reading.jobs {
            // The runs have jobs that ended long ago. Only an end of a job that is known is news.
            let is_known = || known.iter().any(|known| known.key == job.key);
            if job.stage() != JobStage::Ended || is_known() {
                record(job, records, events).await;
            }
        }
        is_due = true;
    }
    for job in due {
        let at = unix_ms();
        let repository = &job.description().repository;
        let read = match source.queue.job(repository, job.key.id, at).await? {
            ReadJob::Known(job) => *job,
            ReadJob::Gone => KnownJob {
                end: Some(JobEnd {
                    unix_ms: at,
                    conclusion: Conclusion::Deleted,
                }),
                ..job.clone()
            },
            // The job stays as it is, and is not due again at once.
            ReadJob::Unreadable => KnownJob {
                read: Some(JobReading {
                    unix_ms: at,
                    is_held: job.stage() == JobStage::Held,
                }),
                ..job.clone()
            },
        };
        record(read, records, events).await;
    }
    Ok(is_due)
}

/// Puts a job on record, and then tells the loop. A job that could not be put on record is read again.
async fn record<R: JobRecords>(job: KnownJob, records: &R, events: &mpsc::Sender<Event>) {
    match records.merge(job).await {
        Ok(Some(job)) => {
            // The loop is gone only if the daemon ends.
            let _ = events.send(Event::Job(Box::new(job))).await;
        }
        Ok(None) => {}
        Err(error) => {
            let error = chain(&error);
            warn!(error, "cannot put a job on record: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
