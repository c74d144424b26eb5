//! One history: a world, its daemons one after the other, and the end that it comes to.

use std::sync::Arc;

use runner_controller::controller::{Command, Request};
use runner_controller::status::Status;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::books::Violation;
use crate::clock;
use crate::daemon::{self, Start};
use crate::mutation::Mutation;
use crate::plan;
use crate::rng::Rng;
use crate::rule::Rule;
use crate::weather::Ill;
use crate::world::{Inner, Order, World};

/// Everything must be as it should this many milliseconds after the last fault: the longest wait
/// that GitHub can ask for, and a job that never ends.
const SETTLES_WITHIN: u64 = 100 * 60_000;
/// How often that is looked at.
const LOOK_EVERY: u64 = 1_000;

/// A verdict may be written this long after its life has ended and all else is well: a write that
/// failed is repeated after two seconds.
const LAST_WRITES: u64 = 5_000;

/// What to run.
#[derive(Debug, Clone)]
pub struct Script {
    /// Its number.
    pub seed: u64,
    /// How much happens before it becomes calm.
    pub events: u64,
    /// Whether it is written down.
    pub traced: bool,
    /// What does not befall it.
    pub without: Vec<Ill>,
    /// A rule that the daemon does not keep.
    pub mutation: Option<Mutation>,
}

/// What came of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// Its account, if it was to be written down.
    pub trace: Vec<String>,
    /// What happened, calm included.
    pub events: u64,
    /// Containers started.
    pub runners: u64,
    /// Jobs sent to runners.
    pub jobs: u64,
    /// Daemons that ran.
    pub daemons: u64,
    /// Calls to GitHub.
    pub calls: u64,
    /// Milliseconds of the history's time until it was settled.
    pub settled_ms: u64,
}

struct Running {
    task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
    requests: mpsc::Sender<Request>,
    _status: watch::Receiver<Status>,
}

struct Play {
    world: World,
    daemon: Option<Running>,
    daemons: u64,
    dies_in: Option<u64>,
}

/// Plays a history on this thread.
pub fn play(script: &Script) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    runtime.block_on(run(script))
}

async fn run(script: &Script) -> anyhow::Result<Outcome> {
    clock::begin(script.seed);
    let config = plan::config(&mut Rng::new(script.seed ^ 0xc0f1))?;
    let world = World::new(script.seed, Arc::new(config), script.traced);
    let mut play = Play {
        world: world.clone(),
        daemon: None,
        daemons: 0,
        dies_in: None,
    };
    {
        let mut w = world.lock();
        w.mutation = script.mutation;
        let climate = Arc::new(w.climate(&script.without));
        w.note(|| format!("seed {}: {climate:?}", script.seed));
        w.next_ill(Arc::clone(&climate));
        w.next_job(climate);
        w.orders.push(Order::Start);
    }
    while !play.is_over() && world.lock().done < script.events {
        play.step().await;
    }
    let settled_ms = play.settle().await;
    play.kill().await;
    let mut w = world.lock();
    w.clear_queue();
    Ok(Outcome {
        violation: w.books.violation.clone(),
        trace: w.trace(),
        events: w.done,
        runners: w.books.runners() as u64,
        jobs: w
            .github
            .jobs
            .values()
            .filter(|job| job.assigned_at > 0)
            .count() as u64,
        daemons: play.daemons,
        calls: w.books.calls.iter().sum(),
        settled_ms,
    })
}

/// The same word once more.
fn same(command: &Command) -> Command {
    match command {
        Command::Drain => Command::Drain,
        Command::Undrain => Command::Undrain,
        Command::Clear => Command::Clear,
        Command::Ping => Command::Ping,
    }
}

impl Play {
    fn is_over(&self) -> bool {
        self.world.lock().books.violation.is_some()
    }

    /// Lets the next thing happen, and what it means for the daemon.
    async fn step(&mut self) {
        self.obey().await;
        let latest = self.world.lock().now() + LOOK_EVERY;
        if !self.world.due(latest).await {
            return;
        }
        // Within a millisecond the daemon may have come so far or so far.
        let turns = self.world.lock().rng.below(4);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        self.world.lock().step();
        if let Some(left) = &mut self.dies_in {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.dies_in = None;
                self.kill().await;
                self.start_later();
            }
        }
        if self
            .daemon
            .as_ref()
            .is_some_and(|daemon| daemon.task.is_finished())
        {
            self.bury().await;
            self.start_later();
        }
    }

    fn start_later(&self) {
        let mut w = self.world.lock();
        let wait = w.rng.wait(100, 2_000, 30_000);
        w.after(wait, |w| w.orders.push(Order::Start));
    }

    async fn obey(&mut self) {
        let orders = std::mem::take(&mut self.world.lock().orders);
        for order in orders {
            match order {
                Order::Start => self.start(),
                Order::Stop => {
                    if let Some(stop) = self.daemon.as_mut().and_then(|d| d.stop.take()) {
                        let _ = stop.send(());
                    }
                }
                Order::Kill { after } => self.dies_in = Some(after + 1),
                Order::PowerCut => {
                    self.kill().await;
                    let mut w = self.world.lock();
                    w.lose_unsynced();
                    w.power_cut();
                    drop(w);
                    self.start_later();
                }
                Order::KillAndLoseStore => {
                    self.kill().await;
                    self.world.lock().store_lost();
                    self.start_later();
                }
                Order::Command(command) => {
                    if let Some(daemon) = &self.daemon {
                        let (reply, answered) = oneshot::channel();
                        let same = same(&command);
                        let _ = daemon.requests.try_send((command, reply));
                        let world = self.world.clone();
                        tokio::spawn(async move {
                            // The daemon ended before it heard: who typed it tries again.
                            if answered.await.is_err() {
                                let again =
                                    move |w: &mut Inner| w.orders.push(Order::Command(same));
                                world.lock().after(1_000, again);
                            }
                        });
                    } else {
                        // Who types it tries again until the daemon is up.
                        let mut w = self.world.lock();
                        w.after(1_000, |w| w.orders.push(Order::Command(command)));
                    }
                }
            }
        }
    }

    fn start(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        self.daemons += 1;
        self.world.lock().books.daemons = self.daemons;
        let (stop, stopped) = oneshot::channel();
        let (requests, asked) = mpsc::channel(16);
        let (show, status) = watch::channel(Status::default());
        let config = {
            let mut w = self.world.lock();
            w.note(|| format!("daemon {} starts", self.daemons));
            Arc::clone(&w.books.config)
        };
        let task = tokio::spawn(daemon::run(Start {
            world: self.world.clone(),
            incarnation: self.daemons,
            config,
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

    async fn bury(&mut self) {
        self.dies_in = None;
        let Some(daemon) = self.daemon.take() else {
            return;
        };
        let ended = daemon.task.await;
        let mut w = self.world.lock();
        if ended.as_ref().is_err_and(tokio::task::JoinError::is_panic) {
            w.violate(Rule::NoPanic, &format!("{ended:?}"));
        }
        w.note(|| format!("daemon {} is gone", self.daemons));
        let now = w.now();
        w.books.former = w.daemon.take().map(|link| (now, link.config));
        w.daemon_died();
        w.sockets_after_death();
    }

    /// No more faults: everything must come to be as it should. Returns how long that took.
    async fn settle(&mut self) -> u64 {
        if self.is_over() {
            return 0;
        }
        let began = {
            let mut w = self.world.lock();
            w.calm();
            w.configure();
            w.orders.push(Order::Stop);
            w.orders.push(Order::Start);
            w.now()
        };
        let mut look_at = began + LOOK_EVERY;
        let mut good_since = None;
        while !self.is_over() {
            self.step().await;
            let mut w = self.world.lock();
            let now = w.now();
            if now < look_at {
                continue;
            }
            look_at = now + LOOK_EVERY;
            let Some(why) = w.unsettled() else {
                if now - *good_since.get_or_insert(now) < LAST_WRITES {
                    continue;
                }
                w.check_verdicts();
                return now - began;
            };
            good_since = None;
            if now - began > SETTLES_WITHIN {
                w.violate(Rule::Settles, &why);
            }
        }
        0
    }
}
