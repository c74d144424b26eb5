//! The slots' sockets, what systemd keeps of them, and the daemon's side of [`Handshake`].

use runner_controller::pool::{Invocation, JobNote, SlotId};
use runner_controller::world::{Event, Handshake, JitConfig};

use crate::host::Trouble;
use crate::mutation::Mutation;
use crate::world::{Inner, World, short};

/// systemd holds a copy of what the daemon opened this many milliseconds after it did.
const STORED_AFTER: u64 = 2;

/// A connection that waits for a config.
#[derive(Debug, Clone)]
struct Waiting {
    invocation: Invocation,
    stored: bool,
}

/// The sockets of one slot.
#[derive(Debug, Default)]
pub struct Socket {
    /// Since when somebody, daemon or systemd, listens.
    listens: Option<u64>,
    waiting: Option<Waiting>,
    queued: Option<Invocation>,
    /// This life may still be given a config.
    due: bool,
    /// The line that was read in this life.
    line: Option<JobNote>,
    /// A line that nobody has read yet.
    unread: Option<JobNote>,
}

impl Inner {
    fn serves(&self, slot: &SlotId) -> bool {
        let link = self.daemon.as_ref();
        link.is_some_and(|link| link.config.place(slot).is_some())
    }

    /// The container connects for its config.
    pub fn connect_to_socket(&mut self, slot: &SlotId, invocation: &Invocation) {
        if let Some(guest) = self.guest(slot, invocation) {
            guest.asks = true;
        }
        if self.place(slot).socket.listens.is_none() {
            self.unanswered(slot, invocation);
            return;
        }
        self.place(slot).socket.queued = Some(invocation.clone());
        self.accept_soon(slot);
    }

    fn accept_soon(&mut self, slot: &SlotId) {
        let wait = self.rng.wait(0, 3, 120);
        let slot = slot.clone();
        self.after(wait, move |w| w.accept(&slot));
    }

    fn accept(&mut self, slot: &SlotId) {
        if !self.serves(slot) {
            return;
        }
        let socket = &mut self.place(slot).socket;
        let Some(invocation) = socket.queued.take() else {
            return;
        };
        if !socket.due || socket.waiting.is_some() {
            self.unanswered(slot, &invocation);
            return;
        }
        socket.waiting = Some(Waiting {
            invocation: invocation.clone(),
            stored: false,
        });
        let id = slot.clone();
        self.after(STORED_AFTER, move |w| {
            let up = w.serves(&id);
            if let Some(waiting) = &mut w.place(&id).socket.waiting {
                waiting.stored |= up && waiting.invocation == invocation;
            }
        });
        self.tell(Event::ConfigRequested { slot: slot.clone() });
    }

    /// The container's end of the connection is gone.
    pub fn hang_up(&mut self, slot: &SlotId, invocation: &Invocation) {
        let socket = &mut self.place(slot).socket;
        if socket.queued.as_ref() == Some(invocation) {
            socket.queued = None;
        }
        if socket
            .waiting
            .as_ref()
            .is_some_and(|w| w.invocation == *invocation)
        {
            socket.waiting = None;
            if self.serves(slot) {
                let wait = self.rng.wait(0, 4, 100);
                let slot = slot.clone();
                self.after(wait, move |w| w.tell(Event::RequestDropped { slot }));
            }
        }
    }

    /// The job-started hook writes its line.
    pub fn job_line(&mut self, slot: &SlotId, note: JobNote) {
        let socket = &mut self.place(slot).socket;
        if socket.listens.is_none() || socket.line.is_some() {
            return;
        }
        socket.unread = Some(note);
        self.read_soon(slot);
    }

    fn read_soon(&mut self, slot: &SlotId) {
        let wait = self.rng.wait(0, 4, 50);
        let id = slot.clone();
        self.after(wait, move |w| {
            if !w.serves(&id) {
                return;
            }
            let socket = &mut w.place(&id).socket;
            let Some(note) = socket.unread.take() else {
                return;
            };
            socket.line = Some(note.clone());
            w.tell(Event::JobStarted { slot: id, note });
        });
    }

    /// The daemon is gone: what systemd has no copy of is closed.
    pub fn sockets_after_death(&mut self) {
        let now = self.now();
        let slots: Vec<SlotId> = self.host.slots.keys().cloned().collect();
        for slot in slots {
            let socket = &mut self.place(&slot).socket;
            let stored = |since: u64| since + STORED_AFTER <= now;
            if !socket.listens.is_none_or(stored) {
                self.close_slot(&slot);
                continue;
            }
            if let Some(waiting) = socket.waiting.take_if(|waiting| !waiting.stored) {
                self.unanswered(&slot, &waiting.invocation);
            }
        }
    }

    /// Nobody listens any more; who waited hears it.
    fn close_slot(&mut self, slot: &SlotId) {
        let old = std::mem::take(&mut self.place(slot).socket);
        let waited = old.waiting.map(|waiting| waiting.invocation);
        for invocation in waited.into_iter().chain(old.queued) {
            self.unanswered(slot, &invocation);
        }
    }

    /// systemd lost what it kept.
    pub fn store_lost(&mut self) {
        let slots: Vec<SlotId> = self.host.slots.keys().cloned().collect();
        for slot in slots {
            self.close_slot(&slot);
        }
    }

    /// A new daemon takes over what systemd kept, and is told at once what there is to tell.
    pub fn open_sockets(&mut self) {
        let slots: Vec<SlotId> = self.host.slots.keys().cloned().collect();
        for slot in slots {
            if !self.serves(&slot) {
                self.close_slot(&slot);
                continue;
            }
            let socket = &mut self.place(&slot).socket;
            let (line, due) = (socket.line.clone(), socket.due);
            let waiting = socket.waiting.take_if(|_| !due);
            let asks = socket.waiting.is_some();
            if let Some(note) = line {
                self.tell(Event::JobStarted {
                    slot: slot.clone(),
                    note,
                });
            }
            if let Some(waiting) = waiting {
                self.unanswered(&slot, &waiting.invocation);
            }
            if asks {
                self.tell(Event::ConfigRequested { slot: slot.clone() });
            }
            self.accept_soon(&slot);
            self.read_soon(&slot);
        }
    }

    fn prepare_slot(&mut self, slot: &SlotId) -> Result<(), Trouble> {
        if !self.serves(slot) {
            return Err(Trouble("slot is not in the configuration"));
        }
        if self.host.sick.run_full {
            self.place(slot).socket.due = false;
            return Err(Trouble("cannot prepare the sockets"));
        }
        let now = self.now();
        let socket = &mut self.place(slot).socket;
        let left = socket.waiting.take().map(|waiting| waiting.invocation);
        let left: Vec<Invocation> = left.into_iter().chain(socket.queued.take()).collect();
        socket.listens.get_or_insert(now);
        (socket.due, socket.line, socket.unread) = (true, None, None);
        for invocation in left {
            self.unanswered(slot, &invocation);
        }
        Ok(())
    }

    fn give(&mut self, slot: &SlotId, config: &str) -> Result<Invocation, Trouble> {
        let socket = &mut self.place(slot).socket;
        if !socket.due {
            return Err(Trouble("the runner has been answered already"));
        }
        let Some(waiting) = socket.waiting.take() else {
            return Err(Trouble("nobody waits for a config"));
        };
        socket.due = false;
        let invocation = waiting.invocation;
        if self.guest(slot, &invocation).is_none() {
            return Err(Trouble("cannot send its config"));
        }
        self.note(|| format!("{slot} {} gets its config", short(invocation.as_str())));
        let before = self.books.last_config.replace(config.to_owned());
        let again = before.filter(|_| self.breaks(Mutation::ConfigTwice));
        let mut config = again.unwrap_or_else(|| config.to_owned());
        if self.breaks(Mutation::ConfigForged) {
            config.push('x');
        }
        if self.breaks(Mutation::ConfigElsewhere)
            && let Some((other, invocation)) = self.somebody_else_who_waits(slot)
        {
            self.config_given(&other, &invocation, &config);
        } else {
            self.config_given(slot, &invocation, &config);
        }
        Ok(invocation)
    }

    fn somebody_else_who_waits(&self, slot: &SlotId) -> Option<(SlotId, Invocation)> {
        let mut others = self.host.slots.iter().filter(|(id, _)| *id != slot);
        others.find_map(|(id, place)| {
            let waiting = place.socket.waiting.as_ref()?;
            Some((id.clone(), waiting.invocation.clone()))
        })
    }
}

/// The sockets, as the daemon of one incarnation reaches them.
pub struct Sockets {
    /// The world.
    pub world: World,
    /// Which daemon's.
    pub incarnation: u64,
}

impl Handshake for Sockets {
    type Error = Trouble;

    async fn prepare(&self, slot: &SlotId) -> Result<(), Trouble> {
        let (slot, incarnation) = (slot.clone(), self.incarnation);
        let at = self.world.lock().soon();
        let called = self.world.call(at, move |w, answer| {
            // A dead daemon does nothing more.
            if w.runs(incarnation) {
                let result = w.prepare_slot(&slot);
                let wait = w.rng.wait(0, 2, 30);
                w.answer(wait, answer, result);
            }
        });
        called
            .await
            .unwrap_or(Err(Trouble("the sockets are closed")))
    }

    async fn answer(&self, slot: &SlotId, config: JitConfig) -> Result<(), Trouble> {
        let (slot, incarnation) = (slot.clone(), self.incarnation);
        let at = self.world.lock().soon();
        let called = self.world.call(at, move |w, answer| {
            if w.runs(incarnation) {
                let result = w.give(&slot, config.expose()).map(|_| ());
                let wait = w.rng.wait(0, 2, 30);
                w.answer(wait, answer, result);
            }
        });
        called
            .await
            .unwrap_or(Err(Trouble("the sockets are closed")))
    }
}

impl Inner {
    /// A moment that is about now.
    pub fn soon(&mut self) -> u64 {
        self.now() + self.rng.wait(0, 2, 30)
    }
}
