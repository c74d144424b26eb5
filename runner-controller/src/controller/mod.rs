//! The controller: one loop that applies events to the pools and carries out what follows.
//!
//! One task owns the pools, and [`crate::pool`] decides. Each call to the world is a task that reports
//! back, so the loop awaits nothing slow. Readers of the status have a watch channel.
//!
//! - `adopt` reads what a new daemon finds.
//! - `apply` applies events, results of tasks and commands, and carries out the effects.
//! - `tasks` makes the calls, `outcome` is what they report, and `writes` keeps the order of writes to the records.
//! - `clearings` numbers the requests to end every runner.
//! - `versions` knows for how long GitHub accepts the runners.
//! - `calendar` follows the schedules of the pools. `demand` knows which jobs wait, and `groups` which of them
//!   a runner group keeps away.
//! - `conditions` knows which part of the world fails, `history` the verdicts, and `report` publishes
//!   the status.

mod adopt;
mod apply;
mod calendar;
mod clearings;
mod conditions;
mod demand;
mod groups;
mod history;
mod outcome;
mod report;
mod tasks;
mod versions;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::info;

use crate::config::Config;
use crate::pool::{Admission, Jobs, KnownJob, Mode, Pace, PoolName, Pools, ScopeId, Timestamp};
use crate::status::{Gate, Histogram, RateLimitStatus, Status};
use crate::world::{Event, Handshake, Machines, Records, Registry, Traces};

use calendar::Calendar;
use clearings::Clearings;
use conditions::Conditions;
use demand::Demand;
use groups::GroupChecks;
use history::History;
use outcome::{ListKind, Outcome};
use versions::Versions;
use writes::WriteQueue;

/// Maximum time that a stopping daemon waits for its tasks. A mint takes as long as GitHub does, and an
/// interrupted mint leaves a registration that the next daemon has to find.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum time that a stopping daemon without other tasks retries a failing write.
const LAST_WRITES_TIMEOUT: Duration = Duration::from_secs(5);

/// Minimum time between two status documents for each runner in them. A document takes up to 2 µs for each runner, so a
/// busy host with many runners spends at most a tenth of a core on it. One with less than 50 publishes each change.
const STATUS_INTERVAL: Duration = Duration::from_micros(20);

/// The world, and the clock and randomness that the core must not have.
pub struct Environment<M, R, H, D> {
    /// Units.
    pub machines: Arc<M>,
    /// GitHub, for each configured scope.
    pub registries: BTreeMap<ScopeId, Client<R>>,
    /// GitHub, for each scope of an earlier configuration, or the reason why it cannot be asked.
    pub former: BTreeMap<ScopeId, Result<Client<R>, String>>,
    /// Sockets of the slots.
    pub handshake: Arc<H>,
    /// Records that outlive the daemon.
    pub records: Arc<D>,
    /// Clock that counts from the boot.
    pub now: fn() -> Timestamp,
    /// Wall clock in milliseconds since 1970. It may jump, so only operators and records use it.
    pub unix_ms: fn() -> u64,
    /// Random numbers, for names that no mint had and for delays that are not in step.
    pub random: fn() -> u32,
    /// Id of the boot.
    pub boot_id: String,
    /// Calls to GitHub so far, by configured scope.
    pub calls: Box<dyn Fn() -> BTreeMap<ScopeId, Calls> + Send>,
    /// Meaning of an exit status, if it is one of the launcher's.
    pub explain_exit: fn(i32) -> Option<&'static str>,
    /// Protections that this host lacks, in words.
    pub notes: Vec<String>,
    /// Jobs on record, if the host knows which jobs wait.
    pub jobs: Option<Vec<KnownJob>>,
    /// Marked when a job starts here, because GitHub's queue has changed then.
    pub job_started: watch::Sender<()>,
    /// Number of jobs that each pool with a scale set can have altogether, for its task.
    pub capacities: BTreeMap<PoolName, watch::Sender<u32>>,
    /// Traces of runners, if a collector gets them.
    pub traces: Option<Arc<dyn Traces>>,
}

/// Calls to GitHub in one scope so far.
#[derive(Debug, Default)]
pub struct Calls {
    /// Their number by operation and outcome.
    pub counts: BTreeMap<String, BTreeMap<String, u64>>,
    /// Times from a request until its whole answer, by operation.
    pub answer_times: BTreeMap<String, Histogram>,
    /// Rate limits that the answers announced.
    pub rate_limits: Vec<RateLimitStatus>,
}

/// GitHub, for one scope.
pub struct Client<R> {
    /// Its runners.
    pub registry: Arc<R>,
    /// Account that a rate limit is about.
    pub account: String,
}

/// Command of an operator.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    /// Start no runner, and end those without a job.
    Drain,
    /// Start runners again, and forget every backoff.
    Undrain,
    /// End and deregister every runner, jobs included, and start none until `Undrain` or `Refill`.
    Clear {
        /// Number of the clearing.
        number: u64,
        /// True if `Refill` follows.
        refills: bool,
    },
    /// Start runners again after the clearing with this number, unless a newer one was requested.
    Refill(u64),
    /// Do nothing. The answer shows that the loop runs.
    Ping,
}

/// A command, and the sender for the answer that it was accepted.
pub type Request = (Command, oneshot::Sender<()>);

/// The controller of one daemon.
pub struct Controller<M, R, H, D> {
    config: Arc<Config>,
    environment: Environment<M, R, H, D>,
    pools: Pools,
    mode: Mode,
    clearings: Clearings,
    /// Running tasks. Each reports its outcome.
    running: JoinSet<Outcome>,
    /// Scopes whose list is requested.
    listing: BTreeMap<ScopeId, ListKind>,
    is_observing: bool,
    writes: WriteQueue,
    conditions: Conditions,
    history: History,
    /// Jobs of GitHub's queue, if deliveries are taken.
    demand: Option<Demand>,
    groups: GroupChecks,
    versions: Versions,
    calendar: Calendar,
    /// Number of runners in GitHub's last list of each scope.
    listed: BTreeMap<ScopeId, u64>,
    /// End of GitHub's rate limit in each scope, as the next daemon will know it.
    limited_until: BTreeMap<ScopeId, Timestamp>,
    started_unix_ms: u64,
    /// Closed gates that the journal has, each with its scope.
    gates: BTreeSet<(Option<String>, Gate)>,
    status: watch::Sender<Status>,
    published_at: Timestamp,
    /// True if something may have changed since the status was published.
    is_stale: bool,
}

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    /// Returns a controller with empty pools. `boots_at_once` is the limit of each pool.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        mut environment: Environment<M, R, H, D>,
        boots_at_once: u16,
        status: watch::Sender<Status>,
    ) -> Self {
        let specs = config.pools.iter();
        let specs = specs.map(|pool| pool.spec(boots_at_once));
        let scopes = config.scopes.iter();
        let scopes = scopes.map(|scope| (scope.scope_id(), Pace::new(scope.mints_per_minute)));
        let mut pools = Pools::new(
            config.host.clone(),
            environment.boot_id.clone(),
            scopes,
            specs,
        );
        pools.set_budget(config.budget);
        let started_unix_ms = (environment.unix_ms)();
        let jobs = environment.jobs.take();
        let demand = jobs.map(|jobs| Demand::new(&config, jobs, started_unix_ms));
        Self {
            config,
            environment,
            pools,
            mode: Mode::default(),
            clearings: Clearings::default(),
            running: JoinSet::new(),
            listing: BTreeMap::new(),
            is_observing: false,
            writes: WriteQueue::default(),
            conditions: Conditions::default(),
            history: History::default(),
            demand,
            groups: GroupChecks::default(),
            versions: Versions::default(),
            calendar: Calendar::default(),
            listed: BTreeMap::new(),
            limited_until: BTreeMap::new(),
            started_unix_ms,
            gates: BTreeSet::new(),
            status,
            published_at: Timestamp::default(),
            is_stale: false,
        }
    }

    /// Runs until `stop` is ready. Containers run on, and [`Controller::adopt`] of the next daemon takes
    /// them over.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        requests: &mut mpsc::Receiver<Request>,
        stop: impl Future<Output = ()>,
    ) {
        let mut stop = std::pin::pin!(stop);
        let mut reconcile = tokio::time::interval(self.config.reconcile);
        reconcile.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut is_news, mut planned_until) = (true, None);
        loop {
            if std::mem::replace(&mut is_news, true) {
                self.act();
                self.clearings.observe(self.state());
                planned_until = self.pools.next_deadline((self.environment.now)());
                self.is_stale = true;
            }
            self.begin_write();
            let (show_at, write_at) = (self.publish_in_time(), self.writes.due_at());
            let deadline = [planned_until, show_at, write_at]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(event) = events.recv() => {
                    self.handle_event(event);
                    self.handle_events(&mut events);
                }
                Some(ended) = self.running.join_next() => {
                    is_news = self.handle_ended_task(ended, &mut events);
                }
                Some((command, reply)) = requests.recv() => {
                    self.execute(&command);
                    // The sender may not wait for the answer.
                    let _ = reply.send(());
                }
                _ = reconcile.tick() => {
                    self.spawn_observe();
                    self.spawn_lists();
                    self.spawn_group_looks();
                    let unix_ms = (self.environment.unix_ms)();
                    if let Some(demand) = &mut self.demand {
                        demand.prune(unix_ms);
                    }
                }
                () = sleep_until(deadline, self.environment.now) => {
                    let now = (self.environment.now)();
                    is_news = planned_until.is_some_and(|until| until <= now);
                }
            }
        }
        self.finish(&mut events).await;
    }

    /// Plans, and starts the tasks that follow.
    fn act(&mut self) {
        let now = (self.environment.now)();
        let is_blocked = self.config.observes || self.conditions.block_admission();
        let admission = self.mode.admission(is_blocked);
        let unix_ms = (self.environment.unix_ms)();
        for (pool, numbers) in self.calendar.look(&self.config.pools, unix_ms) {
            self.pools.set_numbers(pool, numbers);
        }
        let jobs = self.demand.as_ref().map(|demand| Jobs {
            table: demand.table(),
            unix_ms,
        });
        let effects = self.pools.plan(jobs, admission, now);
        self.carry_out(effects);
        self.announce(admission);
        self.report_gates(now);
        self.keep_limits();
    }

    /// Tells the tasks of scale sets how many jobs the pools can have. Without admission that is none, because no runner
    /// starts or registers, and those that listen may end.
    fn announce(&self, admission: Admission) {
        let capacities = self.pools.schedule().capacities();
        for (pool, announced) in &self.environment.capacities {
            let capacity = match admission {
                Admission::Open => capacities.get(pool).copied().unwrap_or_default(),
                Admission::Closed | Admission::Draining | Admission::Clearing => 0,
            };
            let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
            announced.send_if_modified(|known| std::mem::replace(known, capacity) != capacity);
        }
    }

    /// Waits for the tasks, so that no minted config is lost, and writes the records.
    async fn finish(&mut self, events: &mut mpsc::Receiver<Event>) {
        let tasks = self.running.len();
        info!(
            tasks,
            "stopping the daemon after {tasks} calls that are under way; containers run on"
        );
        self.keep_limits();
        // The last writes are tried at once, although the disk was full a moment ago.
        self.writes.retry_now();
        let began = Instant::now();
        let mut is_last = false;
        loop {
            self.begin_write();
            let timeout = if self.running.is_empty() {
                LAST_WRITES_TIMEOUT
            } else {
                STOP_TIMEOUT
            };
            let write = self.writes.due_at();
            if self.running.is_empty() && write.is_none() {
                return;
            }
            tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => {
                    self.handle_ended_task(ended, events);
                }
                () = sleep_until(write, self.environment.now) => {}
                () = tokio::time::sleep_until(began + timeout) => {
                    if is_last || !self.running.is_empty() {
                        return;
                    }
                    // The disk may work again since the last failure.
                    is_last = true;
                    self.writes.retry_now();
                }
            }
        }
    }

    /// Applies the events that wait now. One pass follows all of them. Returns true if there were any.
    ///
    /// Events that arrive meanwhile wait for the next pass, so that a flood of them does not keep the loop from it.
    fn handle_events(&mut self, events: &mut mpsc::Receiver<Event>) -> bool {
        let waiting = events.len();
        for _ in 0..waiting {
            if let Ok(event) = events.try_recv() {
                self.handle_event(event);
            }
        }
        waiting > 0
    }

    /// Applies the outcome of a task, after the events that were sent before it. Returns true if a decision may
    /// depend on any of them.
    fn handle_ended_task(
        &mut self,
        ended: Result<Outcome, JoinError>,
        events: &mut mpsc::Receiver<Event>,
    ) -> bool {
        let outcome = match ended {
            Ok(outcome) => outcome,
            // A release build aborts at the panic. Only a new daemon can tell what the task did.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => return false,
            },
        };
        let has_events = self.handle_events(events);
        let is_good_write = matches!(outcome, Outcome::Written(Ok(())));
        let is_news = !is_good_write || self.conditions.records_error.is_some();
        self.handle_outcome(outcome);
        has_events || is_news
    }
}

async fn sleep_until(at: Option<Timestamp>, now: fn() -> Timestamp) {
    match at {
        Some(at) => tokio::time::sleep(at.since(now()) + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
