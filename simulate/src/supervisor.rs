//! The supervisor starts, stops and kills the daemon, and hands it events and an operator's commands.

use std::sync::Arc;

use runner_controller::config::Config;
use runner_controller::controller::Command;
use runner_controller::world::Event;
use tokio::sync::mpsc;

use crate::event::SimEvent;
use crate::random::{Random, Stream};
use crate::schedule::Scheduler;

/// Interval at which an operator repeats a command that the daemon did not accept, in milliseconds.
const RETRY_COMMAND_MS: u64 = 1_000;
/// Wait for room in the daemon's channel of events, in milliseconds.
const RETRY_EVENT_MS: u64 = 5;

/// The schedule as the supervisor sees it.
type Schedule<'a> = dyn Scheduler<Timer> + 'a;

/// A timer of the supervisor.
pub(crate) enum Timer {
    /// The daemon is started again.
    Start,
    /// An operator repeats a command with this number.
    Command(u64, Command),
    /// An event is delivered, now that the daemon's channel may have room.
    Tell(u64, Box<Event>),
}

/// An action on the daemon's process. [`crate::history`] carries it out.
#[derive(Debug)]
pub(crate) enum Order {
    /// Starts the daemon, unless it runs.
    Start,
    /// Sends SIGTERM.
    Stop,
    /// Kills the daemon after so many more steps.
    Kill {
        /// Steps of the schedule.
        after_steps: u64,
    },
    /// Kills the daemon, and the host loses power.
    PowerCut,
    /// Kills the daemon, and systemd loses the descriptors that it stored.
    LoseDescriptors,
    /// Gives an operator's command with this number.
    Command(u64, Command),
}

/// The daemon that runs.
struct Daemon {
    incarnation: u64,
    events: mpsc::Sender<Event>,
}

/// The supervisor of the daemon.
pub(crate) struct Supervisor {
    random: Random,
    orders: Vec<Order>,
    /// Number of the last command.
    commands: u64,
    daemon: Option<Daemon>,
    config: Arc<Config>,
}

impl Supervisor {
    /// Returns the supervisor of a host where no daemon has run yet.
    #[must_use]
    pub(crate) fn new(seed: u64, config: Arc<Config>) -> Self {
        Self {
            random: Random::new(seed, Stream::Supervisor),
            orders: Vec::new(),
            commands: 0,
            daemon: None,
            config,
        }
    }

    /// Orders an action.
    pub(crate) fn order(&mut self, order: Order) {
        self.orders.push(order);
    }

    /// Takes the orders that are not carried out yet.
    pub(crate) fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// Root wrote another configuration.
    pub(crate) fn configured(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    /// Returns the configuration that a daemon reads now.
    #[must_use]
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config)
    }

    /// A daemon's process runs, and hears events on this channel.
    pub(crate) fn connect(
        &mut self,
        incarnation: u64,
        events: mpsc::Sender<Event>,
        config: Arc<Config>,
        schedule: &mut Schedule<'_>,
    ) {
        self.daemon = Some(Daemon {
            incarnation,
            events,
        });
        schedule.emit(SimEvent::DaemonStarted {
            incarnation,
            config,
        });
    }

    /// The daemon's process is gone.
    pub(crate) fn disconnect(
        &mut self,
        incarnation: u64,
        panic: Option<String>,
        schedule: &mut Schedule<'_>,
    ) {
        self.daemon = None;
        schedule.emit(SimEvent::DaemonEnded { incarnation, panic });
    }

    /// Starts the daemon in a while.
    pub(crate) fn start_later(&mut self, schedule: &mut Schedule<'_>) {
        let wait = self.random.wait(100, 2_000, 30_000);
        schedule.after(wait, Timer::Start);
    }

    /// An operator gives a command.
    pub(crate) fn command(&mut self, command: Command) {
        self.commands += 1;
        self.order(Order::Command(self.commands, command));
    }

    /// The operator repeats a command that no daemon accepted, unless another one was given meanwhile.
    pub(crate) fn repeat_command(
        &mut self,
        number: u64,
        command: Command,
        schedule: &mut Schedule<'_>,
    ) {
        if number == self.commands {
            schedule.after(RETRY_COMMAND_MS, Timer::Command(number, command));
        }
    }

    /// Tells the daemon an event, if a daemon runs.
    pub(crate) fn tell(&mut self, event: Event, schedule: &mut Schedule<'_>) {
        let Some(daemon) = &self.daemon else { return };
        if let Err(mpsc::error::TrySendError::Full(event)) = daemon.events.try_send(event) {
            schedule.after(
                RETRY_EVENT_MS,
                Timer::Tell(daemon.incarnation, Box::new(event)),
            );
        }
    }

    /// A timer is due.
    pub(crate) fn timer(&mut self, timer: Timer, schedule: &mut Schedule<'_>) {
        match timer {
            Timer::Start => self.order(Order::Start),
            Timer::Command(number, command) => {
                if number == self.commands {
                    self.order(Order::Command(number, command));
                }
            }
            Timer::Tell(incarnation, event) => {
                let runs = self.daemon.as_ref();
                if runs.is_some_and(|daemon| daemon.incarnation == incarnation) {
                    self.tell(*event, schedule);
                }
            }
        }
    }
}
