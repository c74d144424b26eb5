//! The task that sends the spans of runners that ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::collector::{Answer, Collector, CollectorError};
use crate::headers::Headers;
use crate::queue::{Counts, MAX_WAITING, Queue, Settled};
use crate::spans::{self, EndedRunner, Origin};

/// Maximum number of runners in one request. Their spans take about 250 KiB.
const MAX_BATCH: usize = 64;

/// Maximum delay that a collector may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);

/// Settings of the task.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the collector, without `/v1/traces`.
    pub endpoint: String,
    /// Headers of each request.
    pub headers: Headers,
    /// Certificate authorities beside those of the host.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Id of the host, for the spans.
    pub host: String,
    /// Version of the program, for the spans.
    pub version: String,
    /// Times.
    pub timing: Timing,
}

/// Times of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Maximum time of a request.
    pub request: Duration,
    /// Delay after a request failed. It doubles with each further failure.
    pub first_pause: Duration,
    /// Maximum delay after a request failed.
    pub longest_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(10),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_mins(1),
        }
    }
}

/// The task, and the queue in front of it.
#[derive(Debug)]
pub struct Exporter {
    queue: Arc<Queue>,
    endpoint: String,
    /// `None` once it was closed.
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Exporter {
    /// Starts the task. It needs Tokio's runtime.
    ///
    /// # Errors
    /// The endpoint is not an address, or TLS cannot be set up.
    pub fn start(settings: Settings) -> Result<Self, CollectorError> {
        let Settings {
            endpoint,
            headers,
            authorities,
            host,
            version,
            timing,
        } = settings;
        let collector = Collector::new(&endpoint, headers, authorities, timing.request)?;
        let queue = Arc::new(Queue::default());
        let sender = Sender {
            queue: Arc::clone(&queue),
            collector,
            endpoint: endpoint.clone(),
            origin: Origin { host, version },
            timing,
        };
        let task = Mutex::new(Some(tokio::spawn(sender.run())));
        Ok(Self {
            queue,
            endpoint,
            task,
        })
    }

    /// Adds a runner that ended. Returns at once. A runner whose unit never started has no trace.
    pub fn add(&self, ended: EndedRunner) {
        if spans::has_trace(&ended) {
            self.queue.push(ended);
        }
    }

    /// Returns the counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.queue.counts()
    }

    /// Sends what waits, once, for at most this time. The rest is dropped, which the journal tells. Returns the last
    /// counts. Later runners are dropped.
    pub async fn close(&self, within: Duration) -> Counts {
        let before = self.counts().dropped;
        self.queue.close();
        let task = (self.task.lock().unwrap_or_else(PoisonError::into_inner)).take();
        if let Some(mut task) = task
            && timeout(within, &mut task).await.is_err()
        {
            task.abort();
        }
        self.queue.give_up();
        let counts = self.counts();
        let lost = counts.dropped - before;
        if lost > 0 {
            let endpoint = &self.endpoint;
            warn!(
                lost,
                endpoint,
                "dropped the traces of {lost} runners: {endpoint} did not take them in time"
            );
        }
        counts
    }
}

struct Sender {
    queue: Arc<Queue>,
    collector: Collector,
    endpoint: String,
    origin: Origin,
    timing: Timing,
}

impl Sender {
    async fn run(self) {
        while let Some(batch) = self.queue.next(MAX_BATCH).await {
            let request = spans::request(&self.origin, &batch);
            if !self.deliver(request.encode_to_vec().into()).await {
                return;
            }
        }
    }

    /// Sends a request until the collector takes or refuses it. Returns false if the queue is closed and the request
    /// failed, which is the end.
    async fn deliver(&self, body: Bytes) -> bool {
        let mut pause = self.timing.first_pause;
        loop {
            match self.collector.send(body.clone()).await {
                Answer::Taken { rejected, message } => {
                    self.queue.settle(Settled::Sent);
                    if rejected > 0 {
                        self.failed(format!("the collector refused {rejected} spans: {message}"));
                    } else {
                        self.succeeded();
                    }
                    return true;
                }
                Answer::Refused { reason } => {
                    self.queue.settle(Settled::Dropped);
                    self.failed(reason);
                    return true;
                }
                Answer::Later { after, reason } => {
                    self.failed(reason);
                    if self.queue.is_closed() {
                        return false;
                    }
                    // Hosts that a collector left at once do not come back at once.
                    let chosen = pause.mul_f64(rand::random_range(0.5..1.0));
                    let delay = after.map_or(chosen, |after| after.min(MAX_RETRY_AFTER));
                    tokio::select! {
                        () = sleep(delay) => {}
                        () = self.queue.closed() => {}
                    }
                    pause = (pause * 2).min(self.timing.longest_pause);
                }
            }
        }
    }

    /// Notes a failure. Only the first in a row has a line in the journal.
    fn failed(&self, error: String) {
        let endpoint = &self.endpoint;
        if self.queue.set_error(Some(error.clone())).is_none() {
            warn!(
                endpoint,
                error,
                "cannot send traces to {endpoint}: {error}; at most {MAX_WAITING} runners wait, and the oldest are dropped first"
            );
        }
    }

    fn succeeded(&self) {
        if self.queue.set_error(None).is_some() {
            let (endpoint, dropped) = (&self.endpoint, self.queue.counts().dropped);
            info!(
                endpoint,
                dropped,
                "sending traces to {endpoint} again; {dropped} runners were dropped so far"
            );
        }
    }
}
