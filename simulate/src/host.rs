//! The simulated host: units and their signals, life records, and systemd's side of [`Machines`].

use std::collections::BTreeMap;

use runner_controller::pool::{
    EndRecord, Exit, Invocation, Slot, SlotId, StartRecord, UnitObservation, UnitState,
};
use runner_controller::world::{Event, Failure, Machines};
use tokio::sync::oneshot;

use crate::clock;
use crate::guest::Guest;
use crate::mutation::Mutation;
use crate::sockets::Socket;
use crate::world::{Inner, World, short};

/// A call that failed, for a reason that passes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(pub &'static str);

impl Failure for Trouble {
    fn is_transient(&self) -> bool {
        true
    }
}

/// What is wrong with the host for a while.
#[derive(Debug, Default, Clone)]
pub struct Sickness {
    /// The system bus does not answer, and nothing is heard.
    pub no_bus: bool,
    /// Signals get lost.
    pub mute: bool,
    /// Containers end while they boot.
    pub boots_fail: bool,
    /// Containers boot and never ask.
    pub boots_hang: bool,
    /// Listeners do not reach GitHub.
    pub no_network: bool,
    /// Memory runs short.
    pub short: bool,
    /// Somebody changed the firewall.
    pub bad_firewall: bool,
    /// `/run` is full: no end records, no sockets.
    pub run_full: bool,
}

type Seen = (UnitState, Option<Invocation>);

/// A slot's unit, its records, its sockets, and what runs in it.
#[derive(Default)]
pub struct Place {
    state: Option<UnitState>,
    /// systemd's name for the newest start.
    pub invocation: Option<Invocation>,
    start_queued: bool,
    /// What runs in it.
    pub guest: Option<Guest>,
    starts: Vec<StartRecord>,
    ends: Vec<EndRecord>,
    signalled: Option<Seen>,
    told: Option<Seen>,
    /// Its sockets and what the daemon holds of them.
    pub socket: Socket,
}

impl Place {
    /// `ActiveState`.
    #[must_use]
    pub fn state(&self) -> UnitState {
        self.state.unwrap_or(UnitState::Inactive)
    }

    /// True while something of a life is there.
    #[must_use]
    pub fn runners(&self) -> bool {
        match self.state() {
            UnitState::Activating | UnitState::Active | UnitState::Deactivating => true,
            UnitState::Inactive | UnitState::Failed => false,
        }
    }

    /// True if a container runs that nobody is ending.
    #[must_use]
    pub fn is_up(&self) -> bool {
        match self.state() {
            UnitState::Activating | UnitState::Active => true,
            UnitState::Inactive | UnitState::Failed | UnitState::Deactivating => false,
        }
    }

    fn event(
        &self,
        slot: &SlotId,
        state: UnitState,
        invocation: Option<Invocation>,
    ) -> UnitObservation {
        let of = |name: &Invocation| invocation.as_ref().is_none_or(|known| known == name);
        UnitObservation {
            slot: slot.clone(),
            state,
            start: self.starts.iter().rfind(|s| of(&s.invocation)).cloned(),
            end: self.ends.iter().rfind(|e| of(&e.invocation)).cloned(),
            invocation,
        }
    }
}

/// The host.
#[derive(Default)]
pub struct Host {
    /// Every slot that was ever used, in this boot.
    pub slots: BTreeMap<SlotId, Place>,
    /// What is wrong.
    pub sick: Sickness,
    /// How often it booted.
    pub boot: u64,
    runners: u64,
    last_call: u64,
}

impl Host {
    /// This boot's id.
    #[must_use]
    pub fn boot_id(&self) -> String {
        format!("boot-{}", self.boot)
    }
}

impl Inner {
    /// A slot.
    pub fn place(&mut self, slot: &SlotId) -> &mut Place {
        self.host.slots.entry(slot.clone()).or_default()
    }

    fn start_unit(&mut self, slot: &SlotId) -> Result<(), Trouble> {
        if self.breaks(Mutation::LosesStarts) && slot.slot.number() == 1 {
            return Ok(());
        }
        if self.breaks(Mutation::OneTooMany) {
            self.start_one_more(slot);
        }
        if self.books.config.place(slot).is_none() {
            return Err(Trouble("polkit names no such unit"));
        }
        match self.place(slot).state() {
            UnitState::Activating | UnitState::Active => {}
            UnitState::Deactivating => self.place(slot).start_queued = true,
            UnitState::Inactive | UnitState::Failed => self.activate(slot),
        }
        Ok(())
    }

    fn start_one_more(&mut self, slot: &SlotId) {
        let max = self
            .books
            .config
            .pool(&slot.pool)
            .map_or(0, |pool| pool.max_runners);
        let extra = Slot::first(max + 1).last().map(|slot_number| SlotId {
            pool: slot.pool.clone(),
            slot: slot_number,
        });
        if let Some(extra) = extra.filter(|extra| !self.place(extra).runners()) {
            self.activate(&extra);
        }
    }

    fn activate(&mut self, slot: &SlotId) {
        self.host.runners += 1;
        let invocation = Invocation::parse(&format!("{:032x}", self.host.runners));
        let Some(invocation) = invocation else { return };
        self.note(|| format!("{slot} {} starts", short(invocation.as_str())));
        let started_at = clock::now();
        let generation = self
            .books
            .config
            .pool(&slot.pool)
            .map(runner_controller::config::PoolConfig::generation);
        let place = self.place(slot);
        place.start_queued = false;
        place.state = Some(UnitState::Activating);
        place.invocation = Some(invocation.clone());
        place.guest = Some(Guest::new(invocation.clone()));
        place.starts.push(StartRecord {
            invocation: invocation.clone(),
            generation: generation.unwrap_or_default(),
            at: started_at,
        });
        self.signal(slot);
        self.runner_began(slot, &invocation);
        self.boot(slot, &invocation);
        let short = self.breaks(Mutation::ShortLives);
        let longest = self.books.config.pool(&slot.pool).map(|pool| {
            let t = &pool.timeouts;
            if short {
                t.boot + t.registration + t.stop
            } else {
                pool.longest_lifetime()
            }
        });
        let longest = longest.map_or(0, |longest| u64::try_from(longest.as_millis()).unwrap_or(0));
        // `RuntimeMaxSec=` of the template.
        self.later(longest, slot, &invocation, |w, slot, invocation| {
            w.cut_short(slot);
            w.end_unit(slot, invocation, Exit::Signal("TERM".to_owned()));
        });
    }

    /// The unit is up: its `ExecStartPost=` is done.
    pub fn active(&mut self, slot: &SlotId, invocation: &Invocation) {
        let place = self.place(slot);
        if place.state() == UnitState::Activating && place.invocation.as_ref() == Some(invocation) {
            place.state = Some(UnitState::Active);
            self.signal(slot);
        }
    }

    /// The container's first process ended; root sweeps, and the unit ends.
    pub fn end_unit(&mut self, slot: &SlotId, invocation: &Invocation, exit: Exit) {
        let place = self.place(slot);
        if place.invocation.as_ref() != Some(invocation) || place.guest.is_none() {
            return;
        }
        self.note(|| format!("{slot} {} ends: {exit:?}", short(invocation.as_str())));
        self.guest_gone(slot);
        self.place(slot).state = Some(UnitState::Deactivating);
        self.signal(slot);
        let sweep = self.rng.wait(3, 300, 20_000);
        let (slot, invocation) = (slot.clone(), invocation.clone());
        self.after(sweep, move |w| w.unit_ended(&slot, &invocation, exit));
    }

    fn unit_ended(&mut self, slot: &SlotId, invocation: &Invocation, exit: Exit) {
        let unrecorded = self.host.sick.run_full && self.rng.chance(500);
        let place = self.place(slot);
        if place.invocation.as_ref() != Some(invocation) || place.state() != UnitState::Deactivating
        {
            return;
        }
        let good = exit == Exit::Status(0);
        if !unrecorded {
            place.ends.push(EndRecord {
                invocation: invocation.clone(),
                service_result: if good { "success" } else { "exit-code" }.to_owned(),
                exit,
                memory_peak_bytes: Some(1 << 20),
                oom_kills: 0,
                at: clock::now(),
            });
        }
        place.state = Some(if good {
            UnitState::Inactive
        } else {
            UnitState::Failed
        });
        let again = place.start_queued;
        self.signal(slot);
        self.runner_ended(slot, invocation);
        if again {
            self.activate(slot);
        }
    }

    /// Everything that ran is gone, and so is `/run`.
    pub fn power_cut(&mut self) {
        let slots: Vec<SlotId> = self.host.slots.keys().cloned().collect();
        for slot in &slots {
            let (runners, invocation) = (
                self.place(slot).runners(),
                self.place(slot).invocation.clone(),
            );
            self.guest_gone(slot);
            if let (true, Some(invocation)) = (runners, invocation) {
                self.runner_ended(slot, &invocation);
            }
        }
        self.host.slots.clear();
        self.host.boot += 1;
        clock::reboot();
    }

    fn signal(&mut self, slot: &SlotId) {
        if self.daemon.is_none() || self.host.sick.no_bus {
            return;
        }
        if self.host.sick.mute && self.rng.chance(300) {
            return;
        }
        let place = self.place(slot);
        let waiting = place.signalled.is_some();
        place.signalled = Some((place.state(), place.invocation.clone()));
        if !waiting {
            let wait = self.rng.wait(0, 8, 400);
            let slot = slot.clone();
            self.after(wait, move |w| w.pass_on(&slot, false));
        }
    }

    fn pass_on(&mut self, slot: &SlotId, anew: bool) {
        let place = self.place(slot);
        let Some(seen) = place.signalled.take() else {
            return;
        };
        let silent = match (&place.told, &seen) {
            (None | Some((UnitState::Inactive, _)), (UnitState::Inactive, None)) => true,
            (told, seen) => told.as_ref() == Some(seen),
        };
        place.told = Some(seen.clone());
        if !silent || anew {
            let event = place.event(slot, seen.0, seen.1);
            self.tell(Event::Unit(event));
        }
    }

    /// The bus is back: everything is looked at and told.
    pub fn bus_is_back(&mut self) {
        self.host.sick.no_bus = false;
        let slots: Vec<SlotId> = self.host.slots.keys().cloned().collect();
        for slot in slots {
            let place = self.place(&slot);
            let known = place.runners() || place.state() == UnitState::Failed;
            let invocation = place.invocation.clone().filter(|_| known);
            place.signalled = Some((place.state(), invocation));
            self.pass_on(&slot, true);
        }
    }

    /// A new daemon has heard nothing yet.
    pub fn forget_signals(&mut self) {
        for place in self.host.slots.values_mut() {
            place.signalled = None;
            place.told = None;
        }
    }

    fn stop_unit(&mut self, slot: &SlotId) {
        let place = self.place(slot);
        if !place.is_up() {
            return;
        }
        let Some(invocation) = place.invocation.clone() else {
            return;
        };
        self.ended_by_us(slot, "stopped");
        self.place(slot).state = Some(UnitState::Deactivating);
        self.signal(slot);
        let busy = self.interrupt(slot);
        let wait = if busy {
            self.rng.wait(300, 8_000, 90_000)
        } else {
            self.rng.wait(20, 500, 5_000)
        };
        let slot = slot.clone();
        self.after(wait, move |w| {
            w.end_unit(&slot, &invocation, Exit::Status(0));
        });
    }

    fn kill_unit(&mut self, slot: &SlotId) {
        let place = self.place(slot);
        let Some(invocation) = place.invocation.clone() else {
            return;
        };
        if place.guest.is_none() {
            return;
        }
        self.ended_by_us(slot, "killed");
        self.end_unit(slot, &invocation, Exit::Signal("KILL".to_owned()));
    }

    /// A message on the bus: they arrive in order, and are answered some time later.
    fn over_the_bus<T: Send + 'static>(
        &mut self,
        answer: oneshot::Sender<Result<T, Trouble>>,
        deed: impl FnOnce(&mut Inner) -> Result<T, Trouble>,
    ) {
        if self.host.sick.no_bus {
            self.answer(1, answer, Err(Trouble("not connected to systemd")));
            return;
        }
        let result = deed(self);
        let wait = self.rng.wait(0, 10, 2_000);
        if self.rng.chance(5) {
            // Done, and nobody hears that it was.
            self.answer(25_000, answer, Err(Trouble("systemd did not answer")));
        } else {
            self.answer(wait, answer, result);
        }
    }

    fn call_arrives(&mut self) -> u64 {
        let at = self.now() + self.rng.wait(0, 4, 300);
        self.host.last_call = self.host.last_call.max(at);
        self.host.last_call
    }

    /// The states are of one moment, what belongs to them is read a little later.
    fn look_later(&mut self, answer: oneshot::Sender<Result<Vec<UnitObservation>, Trouble>>) {
        let states: BTreeMap<SlotId, UnitState> = self
            .host
            .slots
            .iter()
            .filter(|(_, place)| place.state() != UnitState::Inactive)
            .map(|(slot, place)| (slot.clone(), place.state()))
            .collect();
        let Some(config) = self.daemon.as_ref().map(|link| link.config.clone()) else {
            return;
        };
        let wait = self.rng.wait(0, 6, 500);
        self.after(wait, move |w| {
            let mut events = Vec::new();
            for (slot, state) in &states {
                let place = w.place(slot);
                let loaded = place.state() != UnitState::Inactive;
                let invocation = place.invocation.clone().filter(|_| loaded);
                events.push(place.event(slot, *state, invocation));
            }
            for slot in config.slots().filter(|slot| !states.contains_key(slot)) {
                events.push(w.place(&slot).event(&slot, UnitState::Inactive, None));
            }
            let wait = w.rng.wait(0, 6, 500);
            w.answer(wait, answer, Ok(events));
        });
    }
}

/// systemd, as the daemon reaches it.
pub struct Systemd {
    /// The world.
    pub world: World,
}

impl Systemd {
    async fn call<T: Send + 'static>(
        &self,
        deed: impl FnOnce(&mut Inner) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let at = self.world.lock().call_arrives();
        let called = self
            .world
            .call(at, |w, answer| w.over_the_bus(answer, deed));
        called.await.unwrap_or(Err(Trouble("the bus is gone")))
    }
}

impl Machines for Systemd {
    type Error = Trouble;

    async fn start(&self, slot: &SlotId) -> Result<(), Trouble> {
        let slot = slot.clone();
        self.call(move |w| w.start_unit(&slot)).await
    }

    async fn stop(&self, slot: &SlotId) -> Result<(), Trouble> {
        let slot = slot.clone();
        self.call(move |w| {
            w.stop_unit(&slot);
            Ok(())
        })
        .await
    }

    async fn kill(&self, slot: &SlotId) -> Result<(), Trouble> {
        let slot = slot.clone();
        self.call(move |w| {
            w.kill_unit(&slot);
            Ok(())
        })
        .await
    }

    async fn observe(&self) -> Result<Vec<UnitObservation>, Trouble> {
        let at = self.world.lock().call_arrives();
        if self.world.lock().breaks(Mutation::Panics) {
            std::panic::panic_any("a mutation");
        }
        let reconcile = self.world.call(at, |w, answer| {
            if w.host.sick.no_bus {
                w.answer(1, answer, Err(Trouble("not connected to systemd")));
            } else {
                w.look_later(answer);
            }
        });
        reconcile.await.unwrap_or(Err(Trouble("the bus is gone")))
    }
}
