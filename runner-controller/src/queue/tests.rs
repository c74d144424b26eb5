//! Readings of a scripted GitHub, and what becomes of them on record and in the loop.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::pool::{Evidence, JobDescription, JobSource};
use crate::world::testing::Memory;
use crate::world::{QueueReading, RegistryErrorKind};

static UNIX_MS: AtomicU64 = AtomicU64::new(1_000_000);

fn unix_ms() -> u64 {
    UNIX_MS.load(Ordering::Relaxed)
}

fn scope() -> ScopeId {
    ScopeId::new("https://api.github.com", "acme/widgets")
}

/// Returns a job that waits, as a delivery told of it long ago.
fn waiting(id: u64) -> KnownJob {
    KnownJob {
        told_unix_ms: 1_000,
        ..KnownJob::new(
            JobKey {
                scope: scope(),
                source: JobSource::Webhook,
                id,
            },
            Evidence::Queued,
            JobDescription {
                repository: "Acme/Widgets".into(),
                run_id: 7,
                workflow: "CI".into(),
                name: "build".into(),
                labels: vec!["linux".into()],
            },
            1_000,
        )
    }
}

/// Returns the same job as a reading of now tells of it.
fn read_now(id: u64) -> KnownJob {
    KnownJob {
        told_unix_ms: 0,
        read: Some(JobReading {
            unix_ms: unix_ms(),
            is_held: false,
        }),
        ..waiting(id)
    }
}

fn ended(job: KnownJob) -> KnownJob {
    KnownJob {
        end: Some(JobEnd {
            unix_ms: unix_ms(),
            conclusion: Conclusion::Success,
        }),
        ..job
    }
}

/// The answers of GitHub, and the calls that got them.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Answers>>);

#[derive(Default)]
struct Answers {
    is_organization: bool,
    queue: VecDeque<Result<QueueReading, RegistryError>>,
    jobs: VecDeque<Result<ReadJob, RegistryError>>,
    calls: Vec<String>,
}

impl Script {
    fn queue(&self, jobs: Vec<KnownJob>) {
        let reading = QueueReading {
            jobs,
            runs: 3,
            has_more_runs: true,
        };
        self.0.lock().unwrap().queue.push_back(Ok(reading));
    }

    fn job(&self, answer: Result<ReadJob, RegistryError>) {
        self.0.lock().unwrap().jobs.push_back(answer);
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }
}

impl Queue for Script {
    fn repository(&self) -> Option<&str> {
        let answers = self.0.lock().unwrap();
        (!answers.is_organization).then_some("acme/widgets")
    }

    async fn job(&self, repository: &str, id: u64, _: u64) -> Result<ReadJob, RegistryError> {
        let mut answers = self.0.lock().unwrap();
        answers.calls.push(format!("job {id} of {repository}"));
        answers.jobs.pop_front().expect("an answer for a job")
    }

    async fn jobs(&self, _: u64) -> Result<QueueReading, RegistryError> {
        let mut answers = self.0.lock().unwrap();
        answers.calls.push("queue".into());
        answers.queue.pop_front().expect("an answer for the queue")
    }
}

struct Bench {
    script: Script,
    is_full: Arc<AtomicBool>,
    reader: Reader<Script, Memory>,
    events: mpsc::Receiver<Event>,
}

impl Bench {
    fn new(known: Vec<KnownJob>) -> Self {
        Self::with(Script::default(), BESIDE_OTHERS, known)
    }

    fn of_organization(known: Vec<KnownJob>) -> Self {
        let script = Script::default();
        script.0.lock().unwrap().is_organization = true;
        Self::with(script, BESIDE_OTHERS, known)
    }

    fn with(script: Script, interval: Duration, known: Vec<KnownJob>) -> Self {
        let (sender, events) = mpsc::channel(100);
        let records = Memory::default();
        let known = known.into_iter().map(|job| (job.key.clone(), job));
        records.jobs.lock().unwrap().extend(known);
        let is_full = Arc::clone(&records.is_full);
        let outside = Surroundings {
            records,
            events: sender,
            unix_ms,
        };
        Self {
            reader: Reader::new(script.clone(), scope(), interval, outside),
            script,
            is_full,
            events,
        }
    }

    /// Looks once. Returns the jobs that the loop learns of, and the last status.
    async fn look(&mut self) -> (Vec<KnownJob>, Option<QueueStatus>) {
        self.reader.look().await;
        self.news()
    }

    fn news(&mut self) -> (Vec<KnownJob>, Option<QueueStatus>) {
        let (mut jobs, mut status) = (Vec::new(), None);
        while let Ok(event) = self.events.try_recv() {
            if let Event::Job(job) = event {
                jobs.push(*job);
            } else if let Event::Queue(queue) = event {
                status = Some(queue);
            } else {
                panic!("{event:?}");
            }
        }
        (jobs, status)
    }
}

fn failure(kind: RegistryErrorKind) -> RegistryError {
    RegistryError {
        operation: "get job",
        kind,
        status: None,
        message: "it failed".into(),
        advice: None,
        request_id: None,
        retry_after: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_of_which_no_delivery_told_is_found_in_the_queue() {
    let mut bench = Bench::new(vec![]);
    bench.script.queue(vec![read_now(1), ended(read_now(2))]);
    let (jobs, status) = bench.look().await;
    assert_eq!(jobs, [read_now(1)], "a job that ended before is not news");
    let status = status.unwrap();
    assert_eq!((status.runs, status.has_more_runs), (Some(3), true));
    assert_eq!(status.last_unix_ms, Some(unix_ms()));
    let (jobs, _) = bench.look().await;
    assert_eq!(jobs, [], "the queue is not read again at once");
    assert_eq!(bench.script.calls(), ["queue"]);
    bench.script.queue(vec![read_now(1)]);
    tokio::time::advance(BESIDE_OTHERS).await;
    assert_eq!(bench.look().await.0, [], "and nothing has changed");
    assert_eq!(bench.script.calls(), ["queue"]);
}

#[tokio::test(start_paused = true)]
async fn the_lost_end_of_a_job_is_read() {
    let mut bench = Bench::new(vec![waiting(1), waiting(2)]);
    bench.script.queue(vec![ended(read_now(1))]);
    bench
        .script
        .job(Ok(ReadJob::Known(Box::new(ended(read_now(2))))));
    let (jobs, _) = bench.look().await;
    assert!(jobs.len() == 2 && jobs.iter().all(|job| job.end.is_some()));
    assert_eq!(bench.script.calls(), ["queue", "job 2 of Acme/Widgets"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_run_was_deleted_leaves() {
    let mut bench = Bench::new(vec![waiting(1)]);
    bench.script.queue(vec![]);
    bench.script.job(Ok(ReadJob::Gone));
    let (jobs, _) = bench.look().await;
    let end = jobs[0].end.unwrap();
    assert_eq!(end.conclusion, Conclusion::Deleted);
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_fails_changes_nothing_and_is_told_once() {
    for (kind, pause) in [
        (RegistryErrorKind::Unreachable, RETRY),
        (RegistryErrorKind::Forbidden, Duration::from_hours(1)),
    ] {
        let mut bench = Bench::new(vec![waiting(1)]);
        bench.script.queue(vec![]);
        bench.script.job(Err(failure(kind)));
        let (jobs, status) = bench.look().await;
        assert_eq!(jobs, []);
        let error = status.unwrap().error;
        assert_eq!(error.as_deref(), Some("get job: it failed"));
        bench.script.calls();
        tokio::time::advance(pause / 2).await;
        assert_eq!(bench.look().await, (vec![], None));
        assert_eq!(bench.script.calls().len(), 0, "GitHub is left alone");
        tokio::time::advance(pause / 2).await;
        bench.script.queue(vec![read_now(1)]);
        bench.script.job(Ok(ReadJob::Known(Box::new(read_now(1)))));
        let (_, status) = bench.look().await;
        assert_eq!(status.unwrap().error, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cannot_be_read_stays_and_is_not_due_at_once() {
    let mut bench = Bench::of_organization(vec![waiting(1)]);
    bench.script.job(Ok(ReadJob::Unreadable));
    let (jobs, _) = bench.look().await;
    assert_eq!(jobs[0].stage(), JobStage::Queued);
    bench.script.calls();
    bench.look().await;
    assert_eq!(bench.script.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn jobs_of_an_organization_are_read_one_by_one_and_few_at_once() {
    let mut bench = Bench::of_organization((1..=12).map(waiting).collect());
    for id in 1..=12 {
        bench.script.job(Ok(ReadJob::Known(Box::new(read_now(id)))));
    }
    bench.look().await;
    assert_eq!(bench.script.calls().len(), AT_ONCE);
    bench.look().await;
    assert_eq!(bench.script.calls().len(), 2);
    bench.look().await;
    assert_eq!(bench.script.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_starts_here_lets_the_queue_be_read_soon_if_nothing_else_tells_of_it() {
    for (interval, readings_s) in [(FOR_DEMAND, vec![0, 5, 35]), (BESIDE_OTHERS, vec![0])] {
        let Bench {
            script,
            reader,
            events: _events,
            ..
        } = Bench::with(Script::default(), interval, vec![]);
        for _ in 0..4 {
            script.queue(vec![]);
        }
        let began = Instant::now();
        let started = watch::Sender::new(());
        let running = tokio::spawn(reader.run(started.subscribe()));
        let mut found = Vec::new();
        for second in 0..40 {
            if (1..4).contains(&second) {
                started.send_replace(());
            }
            tokio::time::sleep_until(began + Duration::from_millis(second * 1_000 + 500)).await;
            found.extend(script.calls().iter().map(|_| second));
        }
        running.abort();
        assert_eq!(found, readings_s, "{interval:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_once_and_a_reading_is_made_up_for() {
    let mut bench = Bench::new(vec![]);
    bench.script.queue(vec![read_now(1), read_now(2)]);
    bench.is_full.store(true, Ordering::Relaxed);
    let (jobs, status) = bench.look().await;
    assert_eq!(jobs, []);
    assert_eq!(status.unwrap().error.as_deref(), Some("the disk is full"));
    assert_eq!(bench.look().await, (vec![], None), "it is left alone");
    bench.is_full.store(false, Ordering::Relaxed);
    tokio::time::advance(RETRY).await;
    let (jobs, status) = bench.look().await;
    assert_eq!(jobs, [read_now(1), read_now(2)]);
    assert_eq!(status.unwrap().error, None);
}

#[tokio::test(start_paused = true)]
async fn a_reader_ends_with_the_loop_and_is_not_busy_while_records_fail() {
    let bench = Bench::new(vec![]);
    bench.is_full.store(true, Ordering::Relaxed);
    let started = watch::Sender::new(());
    let running = tokio::spawn(bench.reader.run(started.subscribe()));
    // With a reader that never sleeps, the paused clock would not move.
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(!running.is_finished());
    drop(started);
    running.await.unwrap();
}
