//! Keeps the scale set of one pool: finds or creates it, has its only session, and puts on record what its messages tell.
//!
//! The core says which call is next ([`SetSession`]). A message is deleted only after everything that it told is on
//! record, so a daemon that is killed at any moment gets it again, and the jobs on record merge. Nothing starts here: the
//! schedule compares the jobs with the runners. The set is never deleted, because runners without their set listen for
//! ever.
//!
//! - `tasks`: the keepers of all scale sets of a host

mod tasks;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::pool::{
    Conclusion, JobEnd, KnownJob, Polled, PoolName, SetSession, SetState, SetStep, SetTrouble,
    Timestamp, must_announce,
};
use crate::status::ScaleSetStatus;
use crate::world::{
    Event, JobRecords, OpenSession, RegistryError, RegistryErrorKind, ScaleSets, SetError,
    SetMessage, WantedSet, chain,
};

pub use tasks::{KeeperTasks, Keepers};

/// Time for a rise of the capacity to settle before a poll is given up for it. A lower capacity is told at once.
const SETTLE: Duration = Duration::from_secs(1);
/// Maximum time of the last poll, which tells GitHub that the pool takes no jobs now.
const LAST_POLL: Duration = Duration::from_millis(500);
/// Maximum time of each other call of a daemon that stops.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Outside of a keeper: records, loop and clocks.
pub struct Surroundings<R> {
    /// Record of the jobs.
    pub records: R,
    /// The loop, which learns of each job that is news.
    pub events: mpsc::Sender<Event>,
    /// Clock in milliseconds since 1970.
    pub unix_ms: fn() -> u64,
    /// Clock that counts from the boot.
    pub now: fn() -> Timestamp,
}

/// The scale set of one pool.
pub struct Keeper<S: ScaleSets, R> {
    service: Arc<S>,
    wanted: WantedSet,
    pool: PoolName,
    /// Name of this host, for other programs that want the session.
    owner: String,
    /// Number of jobs that the pool can have altogether.
    capacity: watch::Receiver<u32>,
    outside: Surroundings<R>,
    machine: SetSession,
    session: Option<S::Session>,
    status: ScaleSetStatus,
}

impl<S: ScaleSets, R: JobRecords> Keeper<S, R> {
    /// Returns the keeper of a set that was not looked for so far.
    #[must_use]
    pub fn new(
        service: Arc<S>,
        wanted: WantedSet,
        (pool, owner): (PoolName, String),
        capacity: watch::Receiver<u32>,
        outside: Surroundings<R>,
    ) -> Self {
        let status = ScaleSetStatus {
            pool: pool.to_string(),
            name: wanted.name.clone(),
            ..ScaleSetStatus::default()
        };
        Self {
            service,
            wanted,
            pool,
            owner,
            capacity,
            outside,
            machine: SetSession::default(),
            session: None,
            status,
        }
    }

    /// Keeps the set until `stop` is true or its sender is gone. Then closes the session, and leaves the set.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.tell().await;
        loop {
            let work = async {
                match self.machine.next((self.outside.now)()) {
                    Ok(next) => self.take(next).await,
                    Err(until) => {
                        let pause = until.since((self.outside.now)());
                        tokio::time::sleep(pause + Duration::from_millis(1)).await;
                    }
                }
            };
            tokio::select! {
                biased;
                _ = stop.wait_for(|stops| *stops) => break,
                () = work => {}
            }
        }
        self.leave().await;
    }

    /// Makes one call, and applies its answer. Cancelling is safe between all parts.
    async fn take(&mut self, step: SetStep) {
        let before = self.status.clone();
        let mut is_limited = false;
        match self.call(step).await {
            Ok(()) => self.succeeded(),
            Err(error) => {
                // The loop puts a rate limit on record, also one that it was told of before.
                is_limited = error.error.kind == RegistryErrorKind::Limited;
                self.failed(&error);
            }
        }
        self.status.state = self.machine.state();
        if is_limited || self.status != before {
            self.tell().await;
        }
    }

    async fn tell(&self) {
        // The loop is gone only if the daemon ends.
        let told = Event::ScaleSet(self.status.clone());
        let _ = self.outside.events.send(told).await;
    }

    async fn call(&mut self, step: SetStep) -> Result<(), SetError> {
        let now = self.outside.now;
        match (step, &self.session) {
            (SetStep::Find, _) => {
                let found = self.service.find(&self.wanted).await?;
                if let Err(error) = self.end_lost_jobs(found.id).await {
                    self.not_recorded(&error);
                    self.machine.polled(Polled::NotRecorded, now());
                    return Ok(());
                }
                self.machine.found(found.id);
                self.status.id = Some(found.id);
                self.status.other_labels = self.other_labels(found.labels);
            }
            (SetStep::Open(set), _) => {
                let opened = self.service.open(set, &self.owner).await?;
                let (pool, name) = (&self.pool, &self.wanted.name);
                info!(%pool, set, "pool {pool}: opened the session of scale set {name} with id {set}");
                self.machine.opened(opened.token_life, now());
                self.keep(opened);
            }
            (SetStep::Refresh, Some(session)) => {
                let opened = self.service.refresh(session).await?;
                self.machine.refreshed(opened.token_life, now());
                self.keep(opened);
            }
            (SetStep::Acknowledge(message), Some(session)) => {
                self.service.acknowledge(session, message).await?;
                self.machine.acknowledged(message);
            }
            (SetStep::Poll(after), Some(_)) => self.poll(after).await?,
            // Only an open session has such steps, and then there is one.
            (SetStep::Refresh | SetStep::Acknowledge(_) | SetStep::Poll(_), None) => {
                self.machine.failed(SetTrouble::SessionLost, now());
            }
        }
        Ok(())
    }

    /// Ends the jobs of sets that the pool had before, because GitHub lost them with their messages. It assigns each job
    /// that still waits to another set, which is another assignment.
    async fn end_lost_jobs(&self, set: u64) -> Result<(), R::Error> {
        let live = self.outside.records.live_jobs(self.service.scope()).await?;
        let is_lost = |job: &KnownJob| {
            job.pool.as_ref() == Some(&self.pool) && job.set.is_some_and(|other| other != set)
        };
        for job in live.into_iter().filter(is_lost) {
            let (pool, id) = (&self.pool, job.key.id);
            info!(%pool, job_id = id, "pool {pool}: GitHub lost the scale set of job {id}, and no message will tell its end");
            let conclusion = match job.started_unix_ms {
                None => Conclusion::Cancelled,
                // Its runner goes on, and nothing tells how the job ends.
                Some(_) => Conclusion::Other,
            };
            let ended = KnownJob {
                end: Some(JobEnd {
                    unix_ms: (self.outside.unix_ms)(),
                    conclusion,
                }),
                ..job
            };
            if let Some(job) = self.outside.records.merge(ended).await? {
                let _ = self.outside.events.send(Event::Job(Box::new(job))).await;
            }
        }
        Ok(())
    }

    /// Tells that the records take nothing now.
    fn not_recorded(&mut self, error: &R::Error) {
        let (pool, error) = (&self.pool, chain(error));
        warn!(%pool, error, "pool {pool}: cannot put a job of the scale set on record: {error}; it is tried again");
        self.status.error = Some(error);
    }

    fn keep(&mut self, opened: OpenSession<S::Session>) {
        self.session = Some(opened.session);
        self.status.assigned = opened.assigned.or(self.status.assigned);
    }

    /// Returns the labels of the set if they are not the pool's.
    fn other_labels(&self, labels: Vec<String>) -> Option<Vec<String>> {
        let sorted = |labels: &[String]| {
            let mut labels: Vec<String> = labels.iter().map(|l| l.to_lowercase()).collect();
            labels.sort();
            labels
        };
        if sorted(&labels) == sorted(&self.wanted.labels) {
            return None;
        }
        let (pool, name) = (&self.pool, &self.wanted.name);
        let other = labels.join(", ");
        warn!(
            %pool, other,
            "pool {pool}: scale set {name} has other labels than the pool, {other}, and GitHub does not change them; give the pool another scale_set"
        );
        Some(labels)
    }

    /// Waits for a message, and puts on record what it tells. Gives up if GitHub has to know another capacity.
    async fn poll(&mut self, after: u64) -> Result<(), SetError> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        let capacity = *self.capacity.borrow_and_update();
        if self.status.capacity != Some(capacity) {
            self.status.capacity = Some(capacity);
            self.tell().await;
        }
        let unix_ms = (self.outside.unix_ms)();
        let answer = self
            .service
            .poll(session, after, capacity, &self.pool, unix_ms);
        let assigned = self.status.assigned;
        let message = tokio::select! {
            // A message that is there comes first, and one history has one order.
            biased;
            message = answer => message?,
            () = changed(&mut self.capacity, capacity, assigned) => return Ok(()),
        };
        let polled = match message {
            None => Polled::Nothing,
            Some(message) => self.record(message).await?,
        };
        if self.machine.polled(polled, (self.outside.now)()) {
            self.status.unreadable += 1;
            let (pool, count) = (&self.pool, self.status.unreadable);
            warn!(
                %pool, count,
                "pool {pool}: giving up a message of the scale set that cannot be read; {count} so far"
            );
        }
        Ok(())
    }

    /// Puts on record what a message tells, and then tells the loop.
    async fn record(&mut self, message: SetMessage) -> Result<Polled, SetError> {
        self.status.messages += 1;
        self.status.assigned = message.assigned.or(self.status.assigned);
        // The count comes first: with the end of a job alone, the old count would stand for another job that waits.
        self.tell().await;
        for job in message.jobs {
            match self.outside.records.merge(job).await {
                Ok(Some(job)) => {
                    let _ = self.outside.events.send(Event::Job(Box::new(job))).await;
                }
                Ok(None) => {}
                Err(error) => {
                    self.not_recorded(&error);
                    return Ok(Polled::NotRecorded);
                }
            }
        }
        if let (false, Some(session)) = (message.available.is_empty(), &self.session) {
            self.service.acquire(session, &message.available).await?;
        }
        Ok(match message.unreadable {
            None => Polled::Recorded(message.id),
            Some(problem) => {
                let (pool, id) = (&self.pool, message.id);
                warn!(%pool, id, problem, "pool {pool}: cannot read message {id} of the scale set: {problem}");
                Polled::Unreadable(message.id)
            }
        })
    }

    fn succeeded(&mut self) {
        // A message that is not on record is a failure, although GitHub answered.
        if self.machine.state() == SetState::Failing {
            return;
        }
        self.status.last_unix_ms = Some((self.outside.unix_ms)());
        if self.status.error.take().is_some() {
            let (pool, name) = (&self.pool, &self.wanted.name);
            info!(%pool, "pool {pool}: scale set {name} answers again");
        }
    }

    fn failed(&mut self, failure: &SetError) {
        let now = (self.outside.now)();
        self.machine.failed(failure.trouble, now);
        let is_trouble = match failure.trouble {
            // The session of a daemon that was killed is in the way for 92 s.
            SetTrouble::Occupied => self.machine.is_occupied_too_long(now),
            // A new token or session follows at once.
            SetTrouble::TokenRefused | SetTrouble::SessionLost => {
                self.machine.state() == SetState::Failing
            }
            SetTrouble::SetLost | SetTrouble::Passing(_) | SetTrouble::Refused => true,
        };
        let text = failure.to_string();
        let (pool, name) = (&self.pool, &self.wanted.name);
        if !is_trouble {
            info!(%pool, reason = text, "pool {pool}: the session of scale set {name} has to be renewed: {text}");
            return;
        }
        // Each request has its own id, and the same failure is one line in the journal.
        let lasting = RegistryError {
            request_id: None,
            ..(*failure.error).clone()
        };
        let lasting = lasting.to_string();
        if self.status.error.as_ref() != Some(&lasting) {
            let error = &text;
            warn!(%pool, error, "pool {pool}: scale set {name} does not work: {error}; the jobs that were known stay");
        }
        self.status.error = Some(lasting);
    }

    /// Ends the session, so that the next daemon gets one at once.
    async fn leave(self) {
        let Some(session) = self.session.as_ref().filter(|_| self.machine.is_open()) else {
            return;
        };
        for message in self.machine.recorded() {
            let deleted = self.service.acknowledge(session, message);
            let _ = tokio::time::timeout(LAST_CALL, deleted).await;
        }
        // A message that comes now stays in the queue.
        let unix_ms = (self.outside.unix_ms)();
        let answer = self.service.poll(session, 0, 0, &self.pool, unix_ms);
        let _ = tokio::time::timeout(LAST_POLL, answer).await;
        let (pool, name) = (&self.pool, &self.wanted.name);
        match tokio::time::timeout(LAST_CALL, self.service.close(session)).await {
            Ok(Ok(())) => info!(%pool, "pool {pool}: closed the session of scale set {name}"),
            Ok(Err(error)) => warn!(
                %pool, %error,
                "pool {pool}: cannot close the session of scale set {name}: {error}; the next one waits up to 92 s"
            ),
            Err(_) => warn!(
                %pool,
                "pool {pool}: cannot close the session of scale set {name} in time; the next one waits up to 92 s"
            ),
        }
    }
}

/// Waits until GitHub has to know another capacity than `told`.
async fn changed(capacity: &mut watch::Receiver<u32>, told: u32, assigned: Option<u64>) {
    loop {
        let now = *capacity.borrow_and_update();
        if must_announce(told, now, assigned) {
            if now < told {
                return;
            }
            tokio::time::sleep(SETTLE).await;
            if must_announce(told, *capacity.borrow(), assigned) {
                return;
            }
        } else if capacity.changed().await.is_err() {
            // The loop is gone, and the keeper is about to be.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests;
