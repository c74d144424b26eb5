//! The models of one history, wired together.
//!
//! Everything that happens is a timer that comes due, or a call of the daemon, and the events that follow. Timers
//! are carried out in order of time and, within a millisecond, in the order in which they were set. The daemon
//! runs between two steps until it has nothing to do, so that it can be interrupted at each of its `await`s, and
//! the same seed gives the same history to the byte.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runner_controller::config::Config;
use tokio::sync::{Notify, oneshot};

use crate::clock;
use crate::deliveries::{self, Deliveries};
use crate::disk::{self, Disk};
use crate::event::SimEvent;
use crate::fault::{CallFailure, Fault, FaultKind};
use crate::github::{self, GitHub};
use crate::host::{self, Host};
use crate::injector::{self, Injector};
use crate::jobs::{self, Jobs};
use crate::mutation::Mutation;
use crate::network::{self, Network};
use crate::observer::Observer;
use crate::schedule::{Reply, Schedule};
use crate::sockets::{self, Sockets};
use crate::supervisor::{self, Order, Supervisor};

/// A timer, by the model that set it.
pub(crate) enum Timer {
    /// Of the host.
    Host(host::Timer),
    /// Of the sockets.
    Sockets(sockets::Timer),
    /// Of GitHub.
    GitHub(github::Timer),
    /// Of the network.
    Network(network::Timer),
    /// Of the disk.
    Disk(disk::Timer),
    /// Of the supervisor.
    Supervisor(supervisor::Timer),
    /// Of the fault injector.
    Injector(injector::Timer),
    /// Of the jobs.
    Jobs(jobs::Timer),
    /// Of the deliveries.
    Deliveries(deliveries::Timer),
    /// An answer to a call of the daemon.
    Reply(Reply),
}

macro_rules! timers {
    ($($timer:ty => $variant:ident),* $(,)?) => {
        $(impl From<$timer> for Timer {
            fn from(timer: $timer) -> Self {
                Self::$variant(timer)
            }
        })*
    };
}

timers!(
    host::Timer => Host,
    sockets::Timer => Sockets,
    github::Timer => GitHub,
    network::Timer => Network,
    disk::Timer => Disk,
    supervisor::Timer => Supervisor,
    injector::Timer => Injector,
    jobs::Timer => Jobs,
    deliveries::Timer => Deliveries,
    Reply => Reply,
);

/// All models, and the observer.
pub(crate) struct World {
    /// Time, timers and events.
    pub(crate) schedule: Schedule<Timer>,
    /// systemd's units and their containers.
    pub(crate) host: Host,
    /// The slots' sockets.
    pub(crate) sockets: Sockets,
    /// GitHub.
    pub(crate) github: GitHub,
    /// The network between the daemon and GitHub.
    pub(crate) network: Network,
    /// The daemon's records.
    pub(crate) disk: Disk,
    /// Starts and stops the daemon.
    pub(crate) supervisor: Supervisor,
    injector: Injector,
    jobs: Jobs,
    /// GitHub's deliveries, and the host's record of them.
    pub(crate) deliveries: Deliveries,
    /// The checks.
    pub(crate) observer: Observer,
    /// The account of the history, if it is wanted.
    trace: Option<Vec<String>>,
}

/// Options of a world.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Seed of all models.
    pub(crate) seed: u64,
    /// The first configuration.
    pub(crate) config: Arc<Config>,
    /// Kinds of fault that are left out.
    pub(crate) without: Vec<FaultKind>,
    /// The mutation of the daemon.
    pub(crate) mutation: Option<Mutation>,
    /// Keep an account of the history.
    pub(crate) traced: bool,
}

impl World {
    fn new(setup: Setup) -> Self {
        let Setup {
            seed,
            config,
            without,
            mutation,
            traced,
        } = setup;
        let mut world = Self {
            schedule: Schedule::default(),
            host: Host::new(seed, Arc::clone(&config), Mutation::host_rules(mutation)),
            sockets: Sockets::new(seed),
            github: GitHub::new(seed),
            network: Network::new(seed),
            disk: Disk::new(seed, mutation),
            supervisor: Supervisor::new(seed, Arc::clone(&config)),
            injector: Injector::new(seed, &without),
            jobs: Jobs::new(seed, Arc::clone(&config)),
            deliveries: Deliveries::new(seed, mutation),
            observer: Observer::new(Arc::clone(&config)),
            trace: traced.then(Vec::new),
        };
        world.schedule.emit(SimEvent::Configured(config));
        world.injector.begin(&mut world.schedule);
        world.jobs.begin(&mut world.schedule);
        world.supervisor.order(Order::Start);
        world.deliver();
        world
    }

    /// Lets the next timer come due, and delivers the events that follow.
    fn step(&mut self) {
        let Some(timer) = self.schedule.next_timer() else {
            return;
        };
        let schedule = &mut self.schedule;
        match timer {
            Timer::Host(timer) => self.host.timer(timer, schedule),
            Timer::Sockets(timer) => self.sockets.timer(timer, schedule),
            Timer::GitHub(timer) => self.github.timer(timer, schedule),
            Timer::Network(timer) => self.network.timer(timer, schedule),
            Timer::Disk(timer) => self.disk.timer(timer, schedule),
            Timer::Supervisor(timer) => self.supervisor.timer(timer, schedule),
            Timer::Injector(timer) => self.injector.timer(timer, schedule),
            Timer::Jobs(timer) => self.jobs.timer(timer, schedule),
            Timer::Deliveries(timer) => self.deliveries.timer(timer, schedule),
            Timer::Reply(reply) => reply.deliver(),
        }
        self.deliver();
    }

    /// Delivers the events, and those that follow from them.
    fn deliver(&mut self) {
        while let Some(event) = self.schedule.next_event() {
            let now = clock::elapsed();
            if let Some(trace) = &mut self.trace {
                trace.push(format!("{:>5}.{:03} s  {event}", now / 1000, now % 1000));
            }
            self.observer.observe(&event, now);
            self.route(event);
        }
    }

    /// Brings an event to the models that it concerns.
    #[expect(clippy::too_many_lines, reason = "a table with an arm for each event")]
    fn route(&mut self, event: SimEvent) {
        let schedule = &mut self.schedule;
        match event {
            SimEvent::Configured(config) => {
                self.host.configured(Arc::clone(&config));
                self.jobs.configured(Arc::clone(&config));
                self.supervisor.configured(config);
            }
            SimEvent::DaemonStarted {
                incarnation,
                config,
            } => {
                self.deliveries.set_daemon(true);
                self.disk.daemon_started(incarnation);
                self.network.daemon_started(incarnation);
                (self.sockets).daemon_started(incarnation, Arc::clone(&config), schedule);
                self.host.daemon_started(config, schedule);
            }
            SimEvent::DaemonEnded { .. } => {
                self.deliveries.set_daemon(false);
                self.disk.daemon_ended(schedule);
                self.network.daemon_ended();
                self.sockets.daemon_ended(schedule);
                self.host.daemon_ended();
            }
            SimEvent::CommandGiven(command) => self.supervisor.command(command),
            SimEvent::Told(event) => self.supervisor.tell(event, schedule),
            SimEvent::FaultStarted(fault) => self.start_fault(fault),
            SimEvent::FaultEnded(kind) => self.end_fault(kind),
            SimEvent::Calm => {
                // A clock that is wrong by days makes jobs older than GitHub keeps them.
                clock::set_wall_error(0);
                self.host.calm(schedule);
                self.sockets.set_run_full(false);
                self.github.calm();
                self.network.set_failure(None);
                self.network.set_slow(0);
                self.network.set_refusals(None);
                self.disk.set_full(false, false, schedule);
                self.jobs.calm();
                self.supervisor.order(Order::Stop);
                self.supervisor.order(Order::Start);
            }
            SimEvent::HostRebooted => {
                clock::reboot();
                self.disk.lose_unsynced(schedule);
                self.host.reboot(schedule);
                self.sockets.reboot();
            }
            SimEvent::DescriptorsLost => self.sockets.descriptors_lost(schedule),
            SimEvent::ContainerAsked(container) => {
                self.sockets.container_asked(container, schedule);
            }
            SimEvent::ContainerGone { container, runner } => {
                self.sockets.container_gone(&container, schedule);
                if let Some(runner) = runner {
                    self.github.listener_gone(runner, schedule);
                }
            }
            SimEvent::JobReported { container, note } => {
                self.sockets.job_reported(&container.slot, note, schedule);
            }
            SimEvent::ConnectionClosed(container) => {
                self.host.connection_closed(container, schedule);
            }
            SimEvent::ConfigDelivered { container, config } => {
                self.host.config_delivered(container, &config, schedule);
            }
            SimEvent::ListenerConnected { runner } => {
                self.github.listener_connected(runner, schedule);
            }
            SimEvent::ListenerAccepted { runner } => self.host.listener_accepted(runner),
            SimEvent::ListenerRefused { runner, status } => {
                self.host.listener_refused(runner, status, schedule);
            }
            SimEvent::Deregistered { runner, heard } => {
                self.host.deregistered(runner, heard, schedule);
            }
            SimEvent::JobPushed { pool } => self.github.push_job(pool, schedule),
            SimEvent::JobQueued { job, pool } => {
                self.deliveries.job_queued(job, pool, schedule);
                self.jobs.job_waits();
            }
            SimEvent::JobReturned { .. } => self.jobs.job_waits(),
            SimEvent::JobSent { .. } => self.jobs.job_sent(),
            SimEvent::JobOffered { job, runner } => self.host.job_offered(job, runner, schedule),
            SimEvent::JobTaken { job, runner } => self.github.job_taken(job, runner, schedule),
            SimEvent::JobRunning { job, runner } => {
                self.deliveries.job_running(job, runner, schedule);
                self.host.job_running(job, runner, schedule);
            }
            SimEvent::JobEnded { job, end } => {
                self.deliveries.job_ended(job, schedule);
                self.github.job_ended(job, end, schedule);
            }
            SimEvent::JobWithdrawn { job } => {
                self.deliveries.job_ended(job, schedule);
                self.jobs.job_sent();
            }
            SimEvent::PollDropped { call } => self.github.poll_dropped(call, clock::elapsed()),
            SimEvent::Registered { runner, name, .. } => self.deliveries.registered(runner, name),
            SimEvent::CallArrived { call, request } => {
                self.github.call_arrived(call, &request, schedule);
            }
            SimEvent::Answered {
                call,
                endpoint,
                answer,
            } => self.network.answered(call, endpoint, answer, schedule),
            // These concern the observer alone.
            SimEvent::UnitStarted(_)
            | SimEvent::UnitStopRequested { .. }
            | SimEvent::UnitTimedOut(_)
            | SimEvent::UnitEnded { .. }
            | SimEvent::MintReceived { .. }
            | SimEvent::StrangerConnected { .. }
            | SimEvent::DeleteReceived { .. }
            | SimEvent::CallSent { .. }
            | SimEvent::CommandAccepted(_)
            | SimEvent::PollSent { .. }
            | SimEvent::PollEnded { .. }
            | SimEvent::MessageDeleted { .. }
            | SimEvent::SetDeleted { .. }
            | SimEvent::JobRecorded { .. }
            | SimEvent::LimitsTold(_)
            | SimEvent::RecordWritten { .. }
            | SimEvent::RecordRemoved { .. }
            | SimEvent::RecordReverted { .. }
            | SimEvent::RecordsUnreadable
            | SimEvent::RecordsWritable(_)
            | SimEvent::VerdictWritten { .. }
            | SimEvent::VerdictLost { .. }
            | SimEvent::VerdictInterrupted { .. } => {}
        }
    }

    fn start_fault(&mut self, fault: Fault) {
        let schedule = &mut self.schedule;
        match fault {
            Fault::DaemonKilled { after_steps } => {
                self.supervisor.order(Order::Kill { after_steps });
            }
            Fault::DaemonRestarted | Fault::ConfigChanged => self.supervisor.order(Order::Stop),
            Fault::DescriptorsLost => self.supervisor.order(Order::LoseDescriptors),
            Fault::PowerCut => self.supervisor.order(Order::PowerCut),
            Fault::OperatorCommand => {}
            Fault::ContainerDies { draw, exit } => self.host.kill_container(draw, exit, schedule),
            Fault::CallsFail {
                failure,
                rate,
                slow_ms,
            } => {
                match failure {
                    CallFailure::Answer(failure) => self.github.set_failure(Some((failure, rate))),
                    CallFailure::Transport(failure) => {
                        self.network.set_failure(Some((failure, rate)));
                    }
                }
                self.network.set_slow(slow_ms);
            }
            Fault::CallsLimited { until, notice } => self.github.set_limited(until, notice),
            Fault::RegistrationLapses { draw, heard } => self.github.lapse(draw, heard, schedule),
            Fault::VersionRefused => self.github.set_refuses_version(true),
            Fault::StrayRegistration { name, online } => {
                self.github.plant_registration(name, online, schedule);
            }
            Fault::DeletesFail => self.github.set_deletes_fail(true),
            Fault::ProxyRefuses { status, rate } => {
                self.network.set_refusals(Some((status, rate)));
            }
            Fault::BusDown => self.host.set_bus_down(true, schedule),
            Fault::SignalsLost => self.host.set_signals_lost(true),
            Fault::DiskFull { unreadable } => self.disk.set_full(true, unreadable, schedule),
            Fault::WallClockJumps { error_ms } => clock::set_wall_error(error_ms),
            Fault::BootsFail { hang } => self.host.set_boots_fail(!hang, hang),
            Fault::ListenersOffline => self.host.set_listeners_offline(true),
            Fault::RunFull => {
                self.host.set_run_full(true);
                self.sockets.set_run_full(true);
            }
            Fault::FirewallWrong => self.host.set_firewall_wrong(true, schedule),
            Fault::SessionEvicted { draw } => self.github.evict_session(draw, schedule),
            Fault::ScaleSetLost { draw } => self.github.lose_set(draw, schedule),
            Fault::MessageIdsRestarted { draw } => {
                self.github.restart_message_ids(draw, clock::elapsed());
            }
            Fault::MessageUnreadable { deliveries } => self.github.garble_message(deliveries),
            Fault::ServiceTokensEnd => self.github.expire_service_tokens(),
            Fault::JobsEndOddly => self.github.set_odd_ends(true),
            Fault::MemoryShort => self.host.set_memory_short(true, schedule),
        }
    }

    fn end_fault(&mut self, kind: FaultKind) {
        let schedule = &mut self.schedule;
        match kind {
            FaultKind::CallsFail => {
                self.github.set_failure(None);
                self.network.set_failure(None);
                self.network.set_slow(0);
            }
            FaultKind::VersionRefused => self.github.set_refuses_version(false),
            FaultKind::DeletesFail => self.github.set_deletes_fail(false),
            FaultKind::ProxyRefuses => self.network.set_refusals(None),
            FaultKind::BusDown => self.host.set_bus_down(false, schedule),
            FaultKind::SignalsLost => self.host.set_signals_lost(false),
            FaultKind::DiskFull => self.disk.set_full(false, false, schedule),
            FaultKind::BootsFail => self.host.set_boots_fail(false, false),
            FaultKind::ListenersOffline => self.host.set_listeners_offline(false),
            FaultKind::RunFull => {
                self.host.set_run_full(false);
                self.sockets.set_run_full(false);
            }
            FaultKind::FirewallWrong => self.host.set_firewall_wrong(false, schedule),
            FaultKind::MemoryShort => self.host.set_memory_short(false, schedule),
            FaultKind::JobsEndOddly => self.github.set_odd_ends(false),
            // These do not last, or end by themselves.
            FaultKind::DaemonKilled
            | FaultKind::DaemonRestarted
            | FaultKind::ContainerDies
            | FaultKind::CallsLimited
            | FaultKind::RegistrationLapses
            | FaultKind::PowerCut
            | FaultKind::OperatorCommand
            | FaultKind::ConfigChanged
            | FaultKind::WallClockJumps
            | FaultKind::DescriptorsLost
            | FaultKind::SessionEvicted
            | FaultKind::ScaleSetLost
            | FaultKind::MessageIdsRestarted
            | FaultKind::MessageUnreadable
            | FaultKind::ServiceTokensEnd
            | FaultKind::StrayRegistration => {}
        }
    }

    /// Ends all faults.
    pub(crate) fn calm(&mut self) {
        self.injector.calm(&mut self.schedule);
    }

    /// Takes the account of the history.
    #[must_use]
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }
}

/// A handle to a world. Clones share it.
#[derive(Clone)]
pub(crate) struct WorldHandle {
    world: Arc<Mutex<World>>,
    earlier: Arc<Notify>,
}

impl WorldHandle {
    /// Returns a new world.
    #[must_use]
    pub(crate) fn new(setup: Setup) -> Self {
        let world = World::new(setup);
        let earlier = world.schedule.earlier();
        Self {
            world: Arc::new(Mutex::new(world)),
            earlier,
        }
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `act` use the world, and delivers the events that follow.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.lock();
        let result = act(&mut world);
        world.deliver();
        result
    }

    /// Makes a call of the daemon and waits for its answer; `None` if there never is one.
    pub(crate) async fn ask<T>(
        &self,
        call: impl FnOnce(&mut World, oneshot::Sender<T>),
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.with(|world| call(world, answer));
        answered.await.ok()
    }

    /// Waits until the next timer is due, or until `latest`. Returns true if a timer is due.
    pub(crate) async fn due(&self, latest: u64) -> bool {
        loop {
            let next = self.lock().schedule.next_at();
            let until = next.map_or(latest, |next| next.min(latest));
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(clock::instant(until)) => return next == Some(until),
                () = self.earlier.notified() => {}
            }
        }
    }

    /// Lets the next timer come due.
    pub(crate) fn step(&self) {
        self.lock().step();
    }
}
