//! Reads jobs from GitHub's API: for pools whose demand is a repository's queue, and because deliveries may be late or
//! lost, and some are never sent.
//!
//! A job that waits is read again from time to time, and the queue of a repository as a whole. A reading that fails
//! changes nothing: what is known of the jobs stays. The core says which jobs are due.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use crate::pool::{
    Conclusion, JobEnd, JobKey, JobReading, JobStage, KnownJob, ScopeId, due_readings, missing_jobs,
};
use crate::status::QueueStatus;
use crate::world::{Event, JobRecords, Queue, ReadJob, RegistryError, chain};

/// Interval between looks at what is due.
const TICK: Duration = Duration::from_secs(10);
/// Interval between readings of a repository's queue beside deliveries or a scale set, which bring most news.
pub const BESIDE_OTHERS: Duration = Duration::from_mins(5);
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

/// Outside of a reader: records, loop and clock.
pub struct Surroundings<R> {
    /// Record of the jobs.
    pub records: R,
    /// The loop, which learns of each job that is news.
    pub events: mpsc::Sender<Event>,
    /// Clock in milliseconds since 1970.
    pub unix_ms: fn() -> u64,
}

/// Reads the jobs of one scope. Each scope has a reader, so that a slow answer delays no other scope.
pub struct Reader<Q, R> {
    queue: Q,
    scope: ScopeId,
    /// Interval between readings of the whole queue.
    interval: Duration,
    outside: Surroundings<R>,
    /// Time of the last reading of the whole queue.
    read_at: Option<Instant>,
    /// Time of the next one; `None` if the scope is not a repository.
    due_at: Option<Instant>,
    resume_at: Instant,
    status: QueueStatus,
}

/// A reading that failed.
struct Failed {
    text: String,
    pause: Duration,
}

impl From<RegistryError> for Failed {
    fn from(error: RegistryError) -> Self {
        Self {
            text: error.to_string(),
            pause: error.pause(RETRY),
        }
    }
}

impl Failed {
    /// Returns the failure of a call to the records, such as that of a full disk.
    fn of_records(error: &dyn std::error::Error) -> Self {
        Self {
            text: chain(error),
            pause: RETRY,
        }
    }
}

impl<Q: Queue, R: JobRecords> Reader<Q, R> {
    /// Returns a reader that has read nothing. The queue of a repository is read once in an interval.
    #[must_use]
    pub fn new(queue: Q, scope: ScopeId, interval: Duration, outside: Surroundings<R>) -> Self {
        let now = Instant::now();
        Self {
            due_at: queue.repository().map(|_| now),
            queue,
            interval,
            outside,
            read_at: None,
            resume_at: now,
            status: QueueStatus {
                scope: scope.to_string(),
                ..QueueStatus::default()
            },
            scope,
        }
    }

    /// Reads what is due until the loop is gone, which tells by `job_started` that a job started here.
    pub async fn run(mut self, mut job_started: watch::Receiver<()>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = self.due_at.map(|due| due.max(self.resume_at));
            tokio::select! {
                _ = ticks.tick() => {}
                told = job_started.changed() => {
                    if told.is_err() {
                        return;
                    }
                    self.hasten();
                    continue;
                }
                () = sleep_until(next) => {}
            }
            self.look().await;
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

    /// Reads what is due now, unless an earlier failure is too new.
    async fn look(&mut self) {
        if Instant::now() < self.resume_at {
            return;
        }
        let before = self.status.clone();
        match self.read().await {
            Ok(false) => {}
            Ok(true) => self.succeeded(),
            Err(failed) => self.failed(failed),
        }
        if self.status != before {
            // The loop is gone only if the daemon ends.
            let _ = self
                .outside
                .events
                .send(Event::Queue(self.status.clone()))
                .await;
        }
    }

    fn succeeded(&mut self) {
        self.status.last_unix_ms = Some((self.outside.unix_ms)());
        if self.status.error.take().is_some() {
            let scope = &self.scope;
            info!(%scope, "reading jobs of {scope} from GitHub's API again");
        }
    }

    fn failed(&mut self, Failed { text, pause }: Failed) {
        self.resume_at = Instant::now() + pause;
        if self.status.error.as_ref() != Some(&text) {
            let (scope, error) = (&self.scope, &text);
            warn!(
                %scope,
                error,
                "cannot read jobs of {scope} from GitHub's API: {error}; the jobs that were known stay"
            );
        }
        self.status.error = Some(text);
    }

    /// Reads what is due. Returns true if anything was.
    async fn read(&mut self) -> Result<bool, Failed> {
        let known = self.outside.records.live_jobs(&self.scope).await;
        let known = known.map_err(|error| Failed::of_records(&error))?;
        let mut due = due_readings(&known, (self.outside.unix_ms)(), AT_ONCE);
        let is_queue_due = self.due_at.is_some_and(|due| due <= Instant::now());
        if is_queue_due && let Some(repository) = self.queue.repository().map(str::to_owned) {
            let found = self.read_queue(&known).await?;
            // The reading is newer than what was due.
            due.retain(|job| !found.contains(&job.key));
            for job in missing_jobs(&known, &repository, &found, AT_ONCE) {
                if due.iter().all(|due| due.key != job.key) {
                    due.push(job);
                }
            }
        }
        let is_due = is_queue_due || !due.is_empty();
        for job in due {
            self.read_job(job).await?;
        }
        Ok(is_due)
    }

    /// Reads the whole queue. Returns the jobs that it has.
    async fn read_queue(&mut self, known: &[KnownJob]) -> Result<BTreeSet<JobKey>, Failed> {
        let reading = self.queue.jobs((self.outside.unix_ms)()).await?;
        self.status.runs = Some(reading.runs as u64);
        self.status.has_more_runs = reading.has_more_runs;
        let found = reading.jobs.iter().map(|job| job.key.clone()).collect();
        for job in reading.jobs {
            // The runs have jobs that ended long ago. Only an end of a job that is known is news.
            let is_known = || known.iter().any(|known| known.key == job.key);
            if job.stage() != JobStage::Ended || is_known() {
                self.record(job).await?;
            }
        }
        let now = Instant::now();
        (self.read_at, self.due_at) = (Some(now), Some(now + self.interval));
        Ok(found)
    }

    /// Reads one job.
    async fn read_job(&self, job: &KnownJob) -> Result<(), Failed> {
        let unix_ms = (self.outside.unix_ms)();
        let repository = &job.description().repository;
        let read = match self.queue.job(repository, job.key.id, unix_ms).await? {
            ReadJob::Known(job) => *job,
            ReadJob::Gone => KnownJob {
                end: Some(JobEnd {
                    unix_ms,
                    conclusion: Conclusion::Deleted,
                }),
                ..job.clone()
            },
            // The job stays as it is, and is not due again at once.
            ReadJob::Unreadable => KnownJob {
                read: Some(JobReading {
                    unix_ms,
                    is_held: job.stage() == JobStage::Held,
                }),
                ..job.clone()
            },
        };
        self.record(read).await
    }

    /// Puts a job on record, and then tells the loop. A job that could not be put on record is read again.
    async fn record(&self, job: KnownJob) -> Result<(), Failed> {
        let recorded = self.outside.records.merge(job).await;
        if let Some(job) = recorded.map_err(|error| Failed::of_records(&error))? {
            let _ = self.outside.events.send(Event::Job(Box::new(job))).await;
        }
        Ok(())
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
