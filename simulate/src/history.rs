//! One history: a world, its daemons one after the other, and how it ends.

use std::sync::Arc;

use runner_controller::controller::{Command, Request};
use runner_controller::status::Status;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};

use crate::daemon::{self, Start};
use crate::event::SimEvent;
use crate::fault::FaultKind;
use crate::invariant::Violation;
use crate::mutation::Mutation;
use crate::random::{Random, Stream};
use crate::supervisor::Order;
use crate::world::{Setup, WorldHandle};
use crate::{clock, configs};

/// Maximum time from the last fault until everything is settled, in milliseconds. It covers the longest wait that
/// GitHub can ask for, and a job that never ends.
const SETTLES_WITHIN_MS: u64 = 100 * 60_000;
/// Interval between two checks whether everything is settled, in milliseconds.
const CHECK_EVERY_MS: u64 = 1_000;
/// Time for which everything must stay settled, in milliseconds. A verdict whose write failed is written again after
/// two seconds.
const STAYS_SETTLED_MS: u64 = 5_000;

/// Options of a history.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its seed.
    pub seed: u64,
    /// Number of steps before the faults end.
    pub steps: u64,
    /// Keep an account.
    pub traced: bool,
    /// Kinds of fault that are left out.
    pub without: Vec<FaultKind>,
    /// The daemon's defect.
    pub mutation: Option<Mutation>,
}

/// The result of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The first violation.
    pub violation: Option<Violation>,
    /// The account, if one was kept.
    pub trace: Vec<String>,
    /// Number of steps, those after the last fault included.
    pub steps: u64,
    /// Number of containers that were started.
    pub containers: u64,
    /// Number of jobs that were sent to runners.
    pub jobs: u64,
    /// Number of daemons.
    pub daemons: u64,
    /// Number of calls to GitHub.
    pub calls: u64,
    /// Milliseconds of the history from the last fault until everything was settled.
    pub settled_ms: u64,
}

/// A daemon that runs.
struct Running {
    task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
    requests: mpsc::Sender<Request>,
    _status: watch::Receiver<Status>,
}

/// A history that is being played.
struct Play {
    world: WorldHandle,
    mutation: Option<Mutation>,
    turns: Random,
    daemon: Option<Running>,
    daemons: u64,
    /// The daemon is killed after so many more steps.
    killed_in: Option<u64>,
}

/// Plays a history on this thread.
pub fn play(scenario: &Scenario) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    runtime.block_on(run(scenario))
}

async fn run(scenario: &Scenario) -> anyhow::Result<Outcome> {
    let seed = scenario.seed;
    clock::begin(seed);
    let config = configs::draw(&mut Random::new(seed, Stream::Config))?;
    let world = WorldHandle::new(Setup {
        seed,
        config: Arc::new(config),
        without: scenario.without.clone(),
        mutation: scenario.mutation,
        traced: scenario.traced,
    });
    let mut play = Play {
        world: world.clone(),
        mutation: scenario.mutation,
        turns: Random::new(seed, Stream::Turns),
        daemon: None,
        daemons: 0,
        killed_in: None,
    };
    while !play.is_over() && world.with(|world| world.schedule.steps()) < scenario.steps {
        play.step().await;
    }
    let settled_ms = play.settle().await;
    play.kill().await;
    Ok(world.with(|world| {
        // The timers hold answers to calls, and so parts of the daemon's tasks.
        world.schedule.clear();
        let observer = &world.observer;
        Outcome {
            violation: observer.violation().cloned(),
            steps: world.schedule.steps(),
            containers: observer.containers_started(),
            jobs: observer.jobs_sent(),
            daemons: play.daemons,
            calls: observer.calls_sent(),
            settled_ms,
            trace: world.take_trace(),
        }
    }))
}

impl Play {
    fn is_over(&self) -> bool {
        self.world
            .with(|world| world.observer.violation().is_some())
    }

    /// Carries out the orders, lets the next timer come due, and replaces a daemon that ended.
    async fn step(&mut self) {
        self.obey().await;
        if !self.world.due(clock::elapsed() + CHECK_EVERY_MS).await {
            return;
        }
        // Within a millisecond the daemon gets a random number of turns before the timer.
        for _ in 0..self.turns.below(4) {
            tokio::task::yield_now().await;
        }
        self.world.step();
        if let Some(left) = &mut self.killed_in {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.killed_in = None;
                self.kill().await;
                self.start_later();
            }
        }
        let daemon = self.daemon.as_ref();
        if daemon.is_some_and(|daemon| daemon.task.is_finished()) {
            self.bury().await;
            self.start_later();
        }
    }

    fn start_later(&self) {
        self.world
            .with(|world| world.supervisor.start_later(&mut world.schedule));
    }

    async fn obey(&mut self) {
        let orders = self.world.with(|world| world.supervisor.take_orders());
        for order in orders {
            match order {
                Order::Start => self.start(),
                Order::Stop => {
                    if let Some(stop) = self.daemon.as_mut().and_then(|d| d.stop.take()) {
                        let _ = stop.send(());
                    }
                }
                Order::Kill { after_steps } => self.killed_in = Some(after_steps + 1),
                Order::PowerCut => {
                    self.kill().await;
                    self.world
                        .with(|world| world.schedule.emit(SimEvent::HostRebooted));
                    self.start_later();
                }
                Order::LoseDescriptors => {
                    self.kill().await;
                    self.world
                        .with(|world| world.schedule.emit(SimEvent::DescriptorsLost));
                    self.start_later();
                }
                Order::Command(number, command) => self.command(number, command),
            }
        }
    }

    /// Gives the daemon an operator's command. The operator repeats it until a daemon has accepted it.
    fn command(&self, number: u64, command: Command) {
        let world = self.world.clone();
        let repeat = move |command| {
            world.with(|world| {
                (world.supervisor).repeat_command(number, command, &mut world.schedule);
            });
        };
        let Some(daemon) = &self.daemon else {
            repeat(command);
            return;
        };
        let (reply, accepted) = oneshot::channel();
        let _ = daemon.requests.try_send((command, reply));
        let world = self.world.clone();
        tokio::spawn(async move {
            if accepted.await.is_err() {
                repeat(command);
            } else {
                let accepted = SimEvent::CommandAccepted(command);
                world.with(|world| world.schedule.emit(accepted));
            }
        });
    }

    fn start(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        self.daemons += 1;
        let (stop, stopped) = oneshot::channel();
        let (requests, asked) = mpsc::channel(16);
        let (show, status) = watch::channel(Status::default());
        let task = tokio::spawn(daemon::run(Start {
            world: self.world.clone(),
            incarnation: self.daemons,
            config: self.world.with(|world| world.supervisor.config()),
            mutation: self.mutation,
            requests: asked,
            stop: stopped,
            status: show,
        }));
        self.daemon = Some(Running {
            task,
            stop: Some(stop),
            requests,
            _status: status,
        });
    }

    async fn kill(&mut self) {
        if let Some(daemon) = &self.daemon {
            daemon.task.abort();
        }
        self.bury().await;
    }

    /// Waits for the end of the daemon's process.
    async fn bury(&mut self) {
        self.killed_in = None;
        let Some(daemon) = self.daemon.take() else {
            return;
        };
        let ended = daemon.task.await;
        let panic = ended.as_ref().err().filter(|error| error.is_panic());
        let panic = panic.map(JoinError::to_string);
        let incarnation = self.daemons;
        self.world.with(|world| {
            (world.supervisor).disconnect(incarnation, panic, &mut world.schedule);
        });
    }

    /// Ends all faults, and waits until everything is settled. Returns how long that took.
    async fn settle(&mut self) -> u64 {
        if self.is_over() {
            return 0;
        }
        let began = clock::elapsed();
        self.world.with(crate::world::World::calm);
        let mut check_at = began + CHECK_EVERY_MS;
        let mut settled_since = None;
        while !self.is_over() {
            self.step().await;
            let now = clock::elapsed();
            if now < check_at {
                continue;
            }
            check_at = now + CHECK_EVERY_MS;
            let unsettled = self.world.with(|world| world.observer.unsettled());
            let Some(facts) = unsettled else {
                if now - *settled_since.get_or_insert(now) < STAYS_SETTLED_MS {
                    continue;
                }
                self.world.with(|world| world.observer.check_verdicts());
                return now - began;
            };
            settled_since = None;
            if now - began > SETTLES_WITHIN_MS {
                self.world.with(|world| world.observer.never_settled(facts));
            }
        }
        0
    }
}
