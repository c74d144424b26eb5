//! The one loop: gather what happened, fold it into the pools, carry out what they plan.
//!
//! One task owns the pools. Every step that touches the world becomes a task of its own that
//! reports back, so nothing slow is ever awaited here. Others read the watch channel.

mod adopt;
mod fold;
mod show;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info};

use crate::config::Config;
use crate::pool::{
    Admission, Ledger, Pool, PoolName, RunnerName, Shortages, SlotId, Spec, Step, Timestamp,
    Verdict, next_deadline, plan,
};
use crate::status::{Status, VerdictRecord};
use crate::world::{Event, Handshake, Machines, Records, Registry};

use work::Done;

/// How many ended lives `status` shows.
const RECENT: usize = 20;
/// How long a stopping daemon waits for what is under way. A mint takes as long as GitHub does, and
/// one that is cut off leaves a registration that the next daemon has to find.
const GRACE: Duration = Duration::from_secs(20);

/// So long a daemon that has nothing else to wait for repeats a write that fails.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Configs that are minted in a minute, at most. GitHub takes 80 content-creating calls a minute
/// ("Rate limits for the REST API").
pub const MAX_MINTS_PER_MINUTE: usize = 60;
/// No more registrations while so many have no machine, or may exist without one.
pub const MAX_ORPHANS: usize = 24;
const MINUTE: Duration = Duration::from_mins(1);

/// The outside, and the clock and randomness that the core is not to have.
pub struct Environment<M, R, H, D> {
    /// Units.
    pub machines: Arc<M>,
    /// GitHub.
    pub registry: Arc<R>,
    /// Sockets.
    pub handshake: Arc<H>,
    /// What survives a restart.
    pub records: Arc<D>,
    /// Milliseconds since boot.
    pub now: fn() -> Timestamp,
    /// Milliseconds since 1970, by a clock that may jump; only ever shown and kept for people.
    pub unix_ms: fn() -> u64,
    /// Any number, for names that were never used and for waits that do not fall in step.
    pub random: fn() -> u32,
    /// This boot's id.
    pub boot_id: String,
    /// Calls to GitHub so far, by operation and outcome.
    pub calls: Box<dyn Fn() -> BTreeMap<String, BTreeMap<String, u64>> + Send>,
    /// What a container's exit status says about the launcher, in words, if it is one of its own.
    pub explain_exit: fn(i32) -> Option<&'static str>,
}

/// What an operator can ask for.
#[derive(Debug)]
pub enum Command {
    /// No new runners; those without a job end.
    Drain,
    /// New runners again, and every backoff forgotten.
    Undrain,
    /// Everything ends, jobs included, and is deregistered; nothing starts until `Undrain`.
    Clear,
    /// Nothing; the answer tells that the loop turns.
    Ping,
}

/// A command and where its acceptance is told.
pub type Request = (Command, oneshot::Sender<()>);

/// Whether this daemon makes runners. Kept over a restart, not over a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
enum Mode {
    Running,
    Draining,
    Clearing,
}

/// The state of the one loop.
pub struct Controller<M, R, H, D> {
    config: Arc<Config>,
    environment: Environment<M, R, H, D>,
    pools: BTreeMap<PoolName, Pool>,
    ledger: Ledger,
    mode: Mode,
    running: JoinSet<Done>,
    status: watch::Sender<Status>,
    shown: Shown,
    listing: bool,
    reconciling: bool,
    deleting: bool,
    recording: bool,
    unwritten: VecDeque<work::Write>,
    /// Nothing is written before this moment, after a write failed.
    write_at: Timestamp,
    /// When configs were minted, in the last minute.
    mints: VecDeque<Timestamp>,
    /// Until when GitHub wants to be left alone, as the next daemon will know it.
    limited_until: Timestamp,
}

/// What is only ever shown.
#[derive(Default)]
struct Shown {
    since_unix_ms: u64,
    github_ok_unix_ms: Option<u64>,
    github_error: Option<(String, u64)>,
    listed: Option<u64>,
    systemd_error: Option<String>,
    firewall_error: Option<String>,
    shortages: Shortages,
    records_error: Option<String>,
    verdicts: BTreeMap<PoolName, BTreeMap<Verdict, u64>>,
    recent: VecDeque<VerdictRecord>,
}

/// The core's view of a configured pool.
fn spec(config: &crate::config::PoolConfig, boots_at_once: u16) -> Spec {
    Spec {
        name: config.name.clone(),
        min_idle: config.min_idle,
        min_spare: config.min_spare,
        max_runners: config.max_runners,
        generation: config.generation(),
        boots_at_once,
        timeouts: config.timeouts.clone(),
    }
}

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    /// A controller with empty pools. `boots_at_once` is per pool, about the number of cores.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        environment: Environment<M, R, H, D>,
        boots_at_once: u16,
        status: watch::Sender<Status>,
    ) -> Self {
        let pools = config
            .pools
            .iter()
            .map(|pool| (pool.name.clone(), Pool::new(spec(pool, boots_at_once))))
            .collect();
        let since_unix_ms = (environment.unix_ms)();
        Self {
            config,
            environment,
            pools,
            ledger: Ledger::default(),
            mode: Mode::Running,
            running: JoinSet::new(),
            status,
            shown: Shown {
                since_unix_ms,
                ..Shown::default()
            },
            listing: false,
            reconciling: false,
            deleting: false,
            recording: false,
            unwritten: VecDeque::new(),
            write_at: Timestamp::default(),
            limited_until: Timestamp::default(),
            mints: VecDeque::new(),
        }
    }

    /// Runs until `stop` is done. Containers run on after that; [`Controller::adopt`] of the next
    /// daemon takes them over.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        requests: &mut mpsc::Receiver<Request>,
        stop: impl Future<Output = ()>,
    ) {
        let mut stop = std::pin::pin!(stop);
        let mut reconcile = tokio::time::interval(self.config.reconcile);
        reconcile.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.act();
            self.show();
            let deadline = self.deadline();
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(event) = events.recv() => self.see(event),
                Some(done) = self.running.join_next() => match done {
                    Ok(done) => {
                        // A look answers behind what was signalled before it, so fold that first.
                        while let Ok(event) = events.try_recv() {
                            self.see(event);
                        }
                        self.fold(done);
                    }
                    Err(panic) => error!(%panic, "a step panicked; the next look will find what it left"),
                },
                Some((command, reply)) = requests.recv() => {
                    self.obey(&command);
                    // Nobody has to wait for the answer.
                    let _ = reply.send(());
                }
                _ = reconcile.tick() => self.reconcile(),
                () = sleep_until(deadline, self.environment.now) => {}
            }
        }
        self.finish(&mut events).await;
    }

    /// Lets what is under way end, so that no minted config is lost, and writes down where it is.
    async fn finish(&mut self, events: &mut mpsc::Receiver<Event>) {
        info!(
            under_way = self.running.len(),
            "stopping; containers run on"
        );
        // The last words are tried at once, although the disk was full a moment ago.
        self.write_at = Timestamp::default();
        let began = Instant::now();
        loop {
            self.write_next();
            let patience = if self.running.is_empty() {
                LAST_WORDS
            } else {
                GRACE
            };
            let write = (!self.recording && !self.unwritten.is_empty()).then_some(self.write_at);
            if self.running.is_empty() && write.is_none() {
                return;
            }
            tokio::select! {
                biased;
                Some(done) = self.running.join_next() => {
                    while let Ok(event) = events.try_recv() {
                        self.see(event);
                    }
                    if let Ok(done) = done {
                        self.fold(done);
                    }
                }
                () = sleep_until(write, self.environment.now) => {}
                () = tokio::time::sleep_until(began + patience) => return,
            }
        }
    }

    /// When something becomes due by itself.
    fn deadline(&self) -> Option<Timestamp> {
        let now = (self.environment.now)();
        let pools = self
            .pools
            .values()
            .filter_map(|pool| next_deadline(pool, now));
        let ledger = self.ledger.next_deadline().filter(|_| !self.deleting);
        let write = (!self.recording && !self.unwritten.is_empty()).then_some(self.write_at);
        let mint = self.mints.front().map(|at| *at + MINUTE);
        let mint = mint.filter(|_| self.mints.len() >= MAX_MINTS_PER_MINUTE);
        pools.chain(ledger).chain(write).chain(mint).min()
    }

    fn reconcile(&mut self) {
        if !self.reconciling {
            self.reconciling = true;
            self.spawn_reconcile();
        }
        if !self.listing {
            self.listing = true;
            self.spawn_list();
        }
    }

    fn admission(&self) -> Admission {
        match self.mode {
            Mode::Draining => Admission::Draining,
            Mode::Clearing => Admission::Clearing,
            Mode::Running if self.shown.systemd_error.is_some() => Admission::Closed,
            Mode::Running if self.shown.firewall_error.is_some() => Admission::Closed,
            Mode::Running if !self.shown.shortages.is_empty() => Admission::Closed,
            Mode::Running => Admission::Open,
        }
    }

    /// Plans every pool until it has nothing to say, and starts what it asks for.
    fn act(&mut self) {
        let (now, admission) = ((self.environment.now)(), self.admission());
        let mut allowed = self.may_register(now);
        let names: Vec<PoolName> = self.pools.keys().cloned().collect();
        for name in names {
            // Retiring is a step without work; what follows from it is said in the next round.
            for _ in 0..4 {
                let Some(pool) = self.pools.get_mut(&name) else {
                    break;
                };
                pool.may_register = allowed;
                let steps = plan(pool, admission, now);
                if steps.is_empty() {
                    break;
                }
                for step in &steps {
                    pool.begin(step, now);
                    if matches!(step, Step::Register { .. }) {
                        allowed = allowed.saturating_sub(1);
                        self.mints.push_back(now);
                    }
                }
                for step in steps {
                    self.carry_out(
                        &SlotId {
                            pool: name.clone(),
                            slot: step.slot(),
                        },
                        step,
                    );
                }
            }
        }
        self.delete_next(now);
        self.write_next();
    }

    /// How many registrations may be made now. The last net under every backoff: whatever goes
    /// wrong, GitHub is not flooded, by calls or by registrations that nobody listens for.
    fn may_register(&mut self, now: Timestamp) -> usize {
        while self
            .mints
            .front()
            .is_some_and(|at| now.since(*at) >= MINUTE)
        {
            self.mints.pop_front();
        }
        let unowned = MAX_ORPHANS.saturating_sub(self.ledger.len());
        unowned.min(MAX_MINTS_PER_MINUTE.saturating_sub(self.mints.len()))
    }

    /// Starts the next deletion. One at a time: many in a burst are what secondary limits are for.
    fn delete_next(&mut self, now: Timestamp) {
        if self.deleting {
            return;
        }
        for id in self.ledger.plan(now) {
            let runners = self.pools.values().flat_map(|pool| pool.runners.values());
            let mut owners = runners.filter_map(|runner| runner.registration.as_ref()?.id);
            if owners.any(|owner| owner == id) {
                // GitHub gives no id twice. Should it ever seem so, the living one is right.
                error!(runner_id = %id, "a living container has the id of a registration to delete; it is kept");
                self.ledger.deleted(id, true, None, now, 0);
                continue;
            }
            self.deleting = true;
            self.ledger.begin(id);
            self.spawn_delete(id);
            return;
        }
    }

    fn carry_out(&mut self, id: &SlotId, step: Step) {
        match step {
            Step::Start { .. } => {
                info!(pool = %id.pool, slot = %id, "{id}: starting a container");
                self.spawn_start(id);
            }
            Step::Register { slot } => {
                let name = RunnerName::new(
                    self.config.host.clone(),
                    id.clone(),
                    (self.environment.random)(),
                );
                if let Some(pool) = self.pools.get_mut(&id.pool) {
                    pool.minting(slot, name.clone());
                }
                info!(pool = %id.pool, slot = %id, runner = %name, "{id}: registering a spare as {name}");
                self.spawn_mint(id, name);
            }
            Step::Retire { cause, .. } => {
                info!(pool = %id.pool, slot = %id, %cause, "{id}: retiring, because of {cause}");
            }
            Step::Deregister { id: runner, .. } => {
                info!(pool = %id.pool, slot = %id, runner_id = %runner, "{id}: asking GitHub to forget its idle runner");
                self.spawn_deregister(id, runner);
            }
            Step::End { how, .. } => {
                info!(pool = %id.pool, slot = %id, ?how, "{id}: ending the container ({how:?})");
                self.spawn_end(id, how);
            }
        }
        self.record(id);
    }
}

/// Where a person can read about a run; empty if the job did not say.
fn job_url(repository: &str, run_id: &str) -> String {
    if repository.is_empty() || run_id.is_empty() {
        return String::new();
    }
    format!("https://github.com/{repository}/actions/runs/{run_id}")
}

async fn sleep_until(at: Option<Timestamp>, now: fn() -> Timestamp) {
    match at {
        Some(at) => tokio::time::sleep(at.since(now()) + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
