//! The slots' sockets, and the copies of them that systemd stores for the daemon.

use std::collections::BTreeMap;
use std::sync::Arc;

use runner_controller::config::Config;
use runner_controller::pool::{Invocation, JobNote, SlotId};
use runner_controller::world::Event;
use tokio::sync::oneshot;

use crate::event::{ContainerId, SimEvent};
use crate::random::{Random, Stream};
use crate::schedule::Scheduler;
use crate::unavailable::Unavailable;

/// Milliseconds until systemd holds a copy of a descriptor that the daemon opened.
const STORED_AFTER_MS: u64 = 2;

/// The schedule as the sockets see it.
type Schedule<'a> = dyn Scheduler<Timer> + 'a;
/// The place where a call's result is delivered.
type Answer = oneshot::Sender<Result<(), Unavailable>>;

/// A timer of the sockets.
pub(crate) enum Timer {
    /// A call of the daemon with this number takes effect.
    Call(u64, SocketCall),
    /// The daemon accepts a connection.
    Accept(SlotId),
    /// systemd has a copy of the accepted connection.
    Stored(ContainerId),
    /// The daemon reads the line of a job-started hook.
    Read(SlotId),
    /// The daemon notices that a connection is gone.
    TellHungUp(SlotId),
}

/// A call of the daemon.
pub(crate) enum SocketCall {
    /// Prepares a slot for a new container.
    Prepare(SlotId, Answer),
    /// Answers the waiting container with a config.
    Deliver(SlotId, String, Answer),
}

/// A connection that waits for a config.
#[derive(Debug)]
struct Waiting {
    invocation: Invocation,
    stored: bool,
}

/// The sockets of one slot.
#[derive(Debug, Default)]
struct Socket {
    /// Time since which the daemon or systemd holds the listening socket.
    listens_since: Option<u64>,
    waiting: Option<Waiting>,
    /// A connection that is not accepted yet.
    queued: Option<Invocation>,
    /// The container may still get a config.
    due: bool,
    /// The line that the daemon has read.
    line: Option<JobNote>,
    /// The line that the daemon has not read yet.
    unread: Option<JobNote>,
}

/// The daemon that holds the sockets.
struct Daemon {
    incarnation: u64,
    config: Arc<Config>,
}

/// The sockets of all slots.
pub(crate) struct Sockets {
    random: Random,
    slots: BTreeMap<SlotId, Socket>,
    daemon: Option<Daemon>,
    run_full: bool,
}

impl Sockets {
    /// Returns the sockets of a host where no daemon has run yet.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed, Stream::Sockets),
            slots: BTreeMap::new(),
            daemon: None,
            run_full: false,
        }
    }

    /// `/run` is full.
    pub(crate) fn set_run_full(&mut self, full: bool) {
        self.run_full = full;
    }

    /// Returns a container in another slot that waits for its config.
    #[must_use]
    pub(crate) fn waiting_beside(&self, slot: &SlotId) -> Option<SlotId> {
        let mut others = self.slots.iter().filter(|(id, _)| *id != slot);
        let waiting = others.find(|(_, socket)| socket.waiting.is_some());
        waiting.map(|(id, _)| id.clone())
    }

    /// The daemon calls. Calls of a daemon that has ended take no effect.
    pub(crate) fn call(&mut self, incarnation: u64, call: SocketCall, schedule: &mut Schedule<'_>) {
        let wait = self.random.wait(0, 2, 30);
        schedule.after(wait, Timer::Call(incarnation, call));
    }

    /// A timer is due.
    pub(crate) fn timer(&mut self, timer: Timer, schedule: &mut Schedule<'_>) {
        match timer {
            Timer::Call(incarnation, call) => {
                let caller = self.daemon.as_ref();
                if caller.is_none_or(|daemon| daemon.incarnation != incarnation) {
                    return;
                }
                let (result, answer) = match call {
                    SocketCall::Prepare(slot, answer) => (self.prepare(&slot, schedule), answer),
                    SocketCall::Deliver(slot, config, answer) => {
                        (self.deliver(&slot, config, schedule), answer)
                    }
                };
                let wait = self.random.wait(0, 2, 30);
                schedule.reply(wait, answer, result);
            }
            Timer::Accept(slot) => self.accept(&slot, schedule),
            Timer::Stored(container) => {
                let served = self.is_served(&container.slot);
                if let Some(waiting) = &mut self.slot(&container.slot).waiting {
                    waiting.stored |= served && waiting.invocation == container.invocation;
                }
            }
            Timer::Read(slot) => self.read(slot, schedule),
            Timer::TellHungUp(slot) => {
                schedule.emit(SimEvent::Told(Event::RequestDropped { slot }));
            }
        }
    }

    /// A container connected.
    pub(crate) fn container_asked(&mut self, container: ContainerId, schedule: &mut Schedule<'_>) {
        let socket = self.slot(&container.slot);
        if socket.listens_since.is_none() {
            schedule.emit(SimEvent::ConnectionClosed(container));
            return;
        }
        socket.queued = Some(container.invocation);
        self.accept_soon(&container.slot, schedule);
    }

    /// The container's end of its connection is gone.
    pub(crate) fn container_gone(&mut self, container: &ContainerId, schedule: &mut Schedule<'_>) {
        let ContainerId { slot, invocation } = container;
        let served = self.is_served(slot);
        let socket = self.slot(slot);
        socket.queued.take_if(|queued| queued == invocation);
        let hung_up = socket
            .waiting
            .take_if(|waiting| waiting.invocation == *invocation);
        if hung_up.is_some() && served {
            let wait = self.random.wait(0, 4, 100);
            schedule.after(wait, Timer::TellHungUp(slot.clone()));
        }
    }

    /// The job-started hook wrote its line.
    pub(crate) fn job_reported(
        &mut self,
        slot: &SlotId,
        note: JobNote,
        schedule: &mut Schedule<'_>,
    ) {
        let socket = self.slot(slot);
        if socket.listens_since.is_none() || socket.line.is_some() {
            return;
        }
        socket.unread = Some(note);
        self.read_soon(slot, schedule);
    }

    /// A new daemon takes over the copies that systemd stored, and is told what they show.
    pub(crate) fn daemon_started(
        &mut self,
        incarnation: u64,
        config: Arc<Config>,
        schedule: &mut Schedule<'_>,
    ) {
        self.daemon = Some(Daemon {
            incarnation,
            config,
        });
        for slot in self.all_slots() {
            if !self.is_served(&slot) {
                if self.slot(&slot).due {
                    let slot = slot.clone();
                    schedule.emit(SimEvent::Told(Event::ConfigNotGiven { slot }));
                }
                self.close(&slot, schedule);
                continue;
            }
            let socket = self.slot(&slot);
            let (line, due) = (socket.line.clone(), socket.due);
            let refused = socket.waiting.take_if(|_| !due);
            let asks = socket.waiting.is_some();
            if let Some(note) = line {
                let slot = slot.clone();
                schedule.emit(SimEvent::Told(Event::JobStarted { slot, note }));
            }
            if let Some(waiting) = refused {
                closed(&slot, waiting.invocation, schedule);
            }
            if asks {
                let slot = slot.clone();
                schedule.emit(SimEvent::Told(Event::ConfigRequested { slot }));
            } else if due {
                let slot = slot.clone();
                schedule.emit(SimEvent::Told(Event::ConfigNotGiven { slot }));
            }
            self.accept_soon(&slot, schedule);
            self.read_soon(&slot, schedule);
        }
    }

    /// The daemon ended. Descriptors that systemd has no copy of are closed.
    pub(crate) fn daemon_ended(&mut self, schedule: &mut Schedule<'_>) {
        self.daemon = None;
        let now = schedule.now();
        for slot in self.all_slots() {
            let socket = self.slot(&slot);
            let stored = |since: u64| since + STORED_AFTER_MS <= now;
            if !socket.listens_since.is_none_or(stored) {
                self.close(&slot, schedule);
                continue;
            }
            if let Some(waiting) = socket.waiting.take_if(|waiting| !waiting.stored) {
                closed(&slot, waiting.invocation, schedule);
            }
        }
    }

    /// systemd lost the copies.
    pub(crate) fn descriptors_lost(&mut self, schedule: &mut Schedule<'_>) {
        for slot in self.all_slots() {
            self.close(&slot, schedule);
        }
    }

    /// The host boots: neither sockets nor containers are left.
    pub(crate) fn reboot(&mut self) {
        self.slots.clear();
    }

    fn slot(&mut self, slot: &SlotId) -> &mut Socket {
        self.slots.entry(slot.clone()).or_default()
    }

    fn all_slots(&self) -> Vec<SlotId> {
        self.slots.keys().cloned().collect()
    }

    /// Returns true if a daemon runs and its configuration has the slot.
    fn is_served(&self, slot: &SlotId) -> bool {
        let daemon = self.daemon.as_ref();
        daemon.is_some_and(|daemon| daemon.config.place(slot).is_some())
    }

    fn accept_soon(&mut self, slot: &SlotId, schedule: &mut Schedule<'_>) {
        let wait = self.random.wait(0, 3, 120);
        schedule.after(wait, Timer::Accept(slot.clone()));
    }

    fn accept(&mut self, slot: &SlotId, schedule: &mut Schedule<'_>) {
        if !self.is_served(slot) {
            return;
        }
        let socket = self.slot(slot);
        let Some(invocation) = socket.queued.take() else {
            return;
        };
        if !socket.due || socket.waiting.is_some() {
            closed(slot, invocation, schedule);
            return;
        }
        socket.waiting = Some(Waiting {
            invocation: invocation.clone(),
            stored: false,
        });
        let slot = slot.clone();
        let container = ContainerId {
            slot: slot.clone(),
            invocation,
        };
        schedule.after(STORED_AFTER_MS, Timer::Stored(container));
        schedule.emit(SimEvent::Told(Event::ConfigRequested { slot }));
    }

    fn read_soon(&mut self, slot: &SlotId, schedule: &mut Schedule<'_>) {
        let wait = self.random.wait(0, 4, 50);
        schedule.after(wait, Timer::Read(slot.clone()));
    }

    fn read(&mut self, slot: SlotId, schedule: &mut Schedule<'_>) {
        if !self.is_served(&slot) {
            return;
        }
        let socket = self.slot(&slot);
        let Some(note) = socket.unread.take() else {
            return;
        };
        socket.line = Some(note.clone());
        schedule.emit(SimEvent::Told(Event::JobStarted { slot, note }));
    }

    /// Closes everything of a slot.
    fn close(&mut self, slot: &SlotId, schedule: &mut Schedule<'_>) {
        let old = std::mem::take(self.slot(slot));
        let waited = old.waiting.map(|waiting| waiting.invocation);
        for invocation in waited.into_iter().chain(old.queued) {
            closed(slot, invocation, schedule);
        }
    }

    fn prepare(&mut self, slot: &SlotId, schedule: &mut Schedule<'_>) -> Result<(), Unavailable> {
        if !self.is_served(slot) {
            return Err(Unavailable("slot is not in the configuration"));
        }
        if self.run_full {
            self.slot(slot).due = false;
            return Err(Unavailable("cannot create the sockets: no space left"));
        }
        let socket = self.slot(slot);
        let waited = socket.waiting.take().map(|waiting| waiting.invocation);
        let left: Vec<Invocation> = waited.into_iter().chain(socket.queued.take()).collect();
        socket.listens_since.get_or_insert(schedule.now());
        (socket.due, socket.line, socket.unread) = (true, None, None);
        for invocation in left {
            closed(slot, invocation, schedule);
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        slot: &SlotId,
        config: String,
        schedule: &mut Schedule<'_>,
    ) -> Result<(), Unavailable> {
        let socket = self.slot(slot);
        if !socket.due {
            return Err(Unavailable("the container has its config already"));
        }
        let Some(waiting) = socket.waiting.take() else {
            return Err(Unavailable("no container waits for a config"));
        };
        socket.due = false;
        let container = ContainerId {
            slot: slot.clone(),
            invocation: waiting.invocation,
        };
        schedule.emit(SimEvent::ConfigDelivered { container, config });
        Ok(())
    }
}

fn closed(slot: &SlotId, invocation: Invocation, schedule: &mut Schedule<'_>) {
    schedule.emit(SimEvent::ConnectionClosed(ContainerId {
        slot: slot.clone(),
        invocation,
    }));
}
