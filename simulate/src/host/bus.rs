//! systemd on the system bus: calls of the daemon, and signals to it.

use std::collections::BTreeMap;

use runner_controller::pool::{SlotId, UnitObservation, UnitState};
use runner_controller::world::Event;
use tokio::sync::oneshot;

use super::{Host, Schedule, Timer};
use crate::event::SimEvent;
use crate::unavailable::Unavailable;

/// Timeout of a call on the bus, in milliseconds: `DefaultTimeoutSec` of sd-bus.
const CALL_TIMEOUT_MS: u64 = 25_000;

/// The error of a call while the bus is down.
const DOWN: Unavailable = Unavailable("not connected to systemd");

/// The place where a call's result is delivered.
type Answer<T> = oneshot::Sender<Result<T, Unavailable>>;

/// A call of the daemon to systemd.
pub(crate) enum BusCall {
    /// `StartUnit`.
    Start(SlotId, Answer<()>),
    /// `StopUnit`.
    Stop(SlotId, Answer<()>),
    /// `KillUnit` with SIGKILL.
    Kill(SlotId, Answer<()>),
    /// `ListUnits`, and the properties and records of each unit.
    Observe(Answer<Vec<UnitObservation>>),
}

impl Host {
    /// The daemon calls systemd. Calls arrive in the order in which they are made.
    pub(crate) fn call(&mut self, call: BusCall, schedule: &mut Schedule<'_>) {
        let at = schedule.now() + self.random.wait(0, 4, 300);
        self.last_call_at = self.last_call_at.max(at);
        schedule.at(self.last_call_at, Timer::Call(call));
    }

    pub(super) fn call_arrives(&mut self, call: BusCall, schedule: &mut Schedule<'_>) {
        let is_down = self.faults.bus_down;
        match call {
            BusCall::Observe(answer) if is_down => schedule.reply(1, answer, Err(DOWN)),
            BusCall::Observe(answer) => {
                // The states are of one moment. The rest is read a little later.
                let states = self
                    .units
                    .iter()
                    .filter(|(_, unit)| unit.state() != UnitState::Inactive)
                    .map(|(slot, unit)| (slot.clone(), unit.state()))
                    .collect();
                let wait = self.random.wait(0, 6, 500);
                schedule.after(wait, Timer::ReadUnits(states, answer));
            }
            BusCall::Start(_, answer) | BusCall::Stop(_, answer) | BusCall::Kill(_, answer)
                if is_down =>
            {
                schedule.reply(1, answer, Err(DOWN));
            }
            BusCall::Start(slot, answer) => {
                let result = self.start_unit(&slot, schedule);
                self.answer(result, answer, schedule);
            }
            BusCall::Stop(slot, answer) => {
                self.stop_unit(&slot, schedule);
                self.answer(Ok(()), answer, schedule);
            }
            BusCall::Kill(slot, answer) => {
                self.kill_unit(&slot, schedule);
                self.answer(Ok(()), answer, schedule);
            }
        }
    }

    /// Answers a call that was carried out. Some answers get lost.
    fn answer(
        &mut self,
        result: Result<(), Unavailable>,
        answer: Answer<()>,
        schedule: &mut Schedule<'_>,
    ) {
        let wait = self.random.wait(0, 10, 2_000);
        if self.random.chance(5) {
            let lost = Err(Unavailable("systemd did not answer"));
            schedule.reply(CALL_TIMEOUT_MS, answer, lost);
        } else {
            schedule.reply(wait, answer, result);
        }
    }

    pub(super) fn read_units(
        &mut self,
        states: &BTreeMap<SlotId, UnitState>,
        answer: Answer<Vec<UnitObservation>>,
        schedule: &mut Schedule<'_>,
    ) {
        let Some(config) = self.daemon_config.clone() else {
            return;
        };
        let mut observations = Vec::new();
        for (slot, state) in states {
            let unit = self.unit(slot);
            let loaded = unit.state() != UnitState::Inactive;
            let invocation = unit.invocation.clone().filter(|_| loaded);
            observations.push(unit.observation(slot, *state, invocation));
        }
        for slot in config.slots().filter(|slot| !states.contains_key(slot)) {
            let unit = self.unit(&slot);
            observations.push(unit.observation(&slot, UnitState::Inactive, None));
        }
        let wait = self.random.wait(0, 6, 500);
        schedule.reply(wait, answer, Ok(observations));
    }

    /// systemd signals that a unit changed.
    pub(super) fn signal(&mut self, slot: &SlotId, schedule: &mut Schedule<'_>) {
        if self.daemon_config.is_none() || self.faults.bus_down {
            return;
        }
        if self.faults.signals_lost && self.random.chance(300) {
            return;
        }
        let unit = self.unit(slot);
        let under_way = unit.signalled.is_some();
        unit.signalled = Some((unit.state(), unit.invocation.clone()));
        if !under_way {
            let wait = self.random.wait(0, 8, 400);
            schedule.after(wait, Timer::Signal(slot.clone()));
        }
    }

    /// Delivers a signal. One that reports nothing new is dropped, unless it is `forced`.
    pub(super) fn deliver_signal(
        &mut self,
        slot: &SlotId,
        forced: bool,
        schedule: &mut Schedule<'_>,
    ) {
        let unit = self.unit(slot);
        let Some(reported) = unit.signalled.take() else {
            return;
        };
        let known = match (&unit.told, &reported) {
            (None | Some((UnitState::Inactive, _)), (UnitState::Inactive, None)) => true,
            (told, reported) => told.as_ref() == Some(reported),
        };
        unit.told = Some(reported.clone());
        if !known || forced {
            let observation = unit.observation(slot, reported.0, reported.1);
            schedule.emit(SimEvent::Told(Event::Unit(observation)));
        }
    }

    /// Tells the daemon the state of every unit, because it has connected to the bus again.
    pub(super) fn tell_all_units(&mut self, schedule: &mut Schedule<'_>) {
        let slots: Vec<SlotId> = self.units.keys().cloned().collect();
        for slot in slots {
            let unit = self.unit(&slot);
            let known = unit.is_lasting() || unit.state() == UnitState::Failed;
            let invocation = unit.invocation.clone().filter(|_| known);
            unit.signalled = Some((unit.state(), invocation));
            self.deliver_signal(&slot, true, schedule);
        }
    }
}
