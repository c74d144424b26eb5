//! Units: start, stop, sweep, and the records that root writes.

use runner_controller::config::PoolConfig;
use runner_controller::pool::{
    EndRecord, Exit, Invocation, RecordedEnd, ResourceUse, SlotId, StartRecord, UnitObservation,
    UnitState,
};

use super::container::Container;
use super::{Host, Schedule, Timer};
use crate::clock;
use crate::event::{ContainerId, SimEvent, StopKind};
use crate::unavailable::Unavailable;

/// Number of starts of a slot of which root keeps the records.
pub(crate) const RECORDS_KEPT: usize = 8;

/// The state and the start that a signal reports.
pub(super) type Reported = (UnitState, Option<Invocation>);

/// A slot's unit.
#[derive(Default)]
pub(super) struct Unit {
    state: Option<UnitState>,
    /// systemd's id of the newest start.
    pub(super) invocation: Option<Invocation>,
    start_queued: bool,
    pub(super) container: Option<Container>,
    starts: Vec<StartRecord>,
    ends: Vec<EndRecord>,
    /// The report that is on its way to the daemon.
    pub(super) signalled: Option<Reported>,
    /// The report that the daemon got last.
    pub(super) told: Option<Reported>,
}

impl Unit {
    /// Returns `ActiveState`.
    pub(super) fn state(&self) -> UnitState {
        self.state.unwrap_or(UnitState::Inactive)
    }

    /// Returns true from the start until the slot is swept.
    pub(super) fn is_lasting(&self) -> bool {
        match self.state() {
            UnitState::Activating | UnitState::Active | UnitState::Deactivating => true,
            UnitState::Inactive | UnitState::Failed => false,
        }
    }

    /// Returns true if the unit runs and is not being stopped.
    pub(super) fn is_up(&self) -> bool {
        match self.state() {
            UnitState::Activating | UnitState::Active => true,
            UnitState::Inactive | UnitState::Failed | UnitState::Deactivating => false,
        }
    }

    /// Returns the observation of a state, with the records that belong to the start.
    pub(super) fn observation(
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

    /// Returns every end that root has on record.
    pub(super) fn recorded_ends(&self, slot: &SlotId) -> impl Iterator<Item = RecordedEnd> {
        self.ends.iter().map(|end| {
            let mut starts = self.starts.iter();
            RecordedEnd {
                slot: slot.clone(),
                start: starts.find(|s| s.invocation == end.invocation).cloned(),
                end: end.clone(),
            }
        })
    }

    /// Removes root's records of all but the newest starts.
    fn prune(&mut self) {
        let old = self.starts.len().saturating_sub(RECORDS_KEPT);
        let old: Vec<StartRecord> = self.starts.drain(..old).collect();
        let is_old = |end: &EndRecord| old.iter().any(|start| start.invocation == end.invocation);
        self.ends.retain(|end| !is_old(end));
    }

    /// Forgets the signals, because a new daemon has heard none.
    pub(super) fn forget_signals(&mut self) {
        (self.signalled, self.told) = (None, None);
    }
}

impl Host {
    pub(super) fn start_unit(
        &mut self,
        slot: &SlotId,
        schedule: &mut Schedule<'_>,
    ) -> Result<(), Unavailable> {
        if self.config.place(slot).is_none() && !self.rules.allows_any_slot {
            return Err(Unavailable("polkit does not allow this unit"));
        }
        match self.unit(slot).state() {
            UnitState::Activating | UnitState::Active => {}
            UnitState::Deactivating => self.unit(slot).start_queued = true,
            UnitState::Inactive | UnitState::Failed => self.activate(slot, schedule),
        }
        Ok(())
    }

    fn activate(&mut self, slot: &SlotId, schedule: &mut Schedule<'_>) {
        self.starts += 1;
        let Some(invocation) = Invocation::parse(&format!("{:032x}", self.starts)) else {
            return;
        };
        let pool = self.config.pool(&slot.pool);
        let generation = pool.map(PoolConfig::generation).unwrap_or_default();
        let runtime_max = pool.map(self.rules.runtime_max).unwrap_or_default();
        let unit = self.unit(slot);
        unit.start_queued = false;
        unit.state = Some(UnitState::Activating);
        unit.invocation = Some(invocation.clone());
        unit.container = Some(Container::new(invocation.clone()));
        unit.starts.push(StartRecord {
            invocation: invocation.clone(),
            generation,
            returns_result: true,
            at: clock::now(),
        });
        unit.prune();
        let container = ContainerId {
            slot: slot.clone(),
            invocation,
        };
        schedule.emit(SimEvent::UnitStarted(container.clone()));
        self.signal(slot, schedule);
        self.boot(&container, schedule);
        let runtime_max = u64::try_from(runtime_max.as_millis()).unwrap_or(u64::MAX);
        schedule.after(runtime_max, Timer::RuntimeMax(container));
    }

    /// The container is ready, and its network.
    pub(super) fn active(&mut self, container: &ContainerId, schedule: &mut Schedule<'_>) {
        if self.container(container).is_none() {
            return;
        }
        let unit = self.unit(&container.slot);
        if unit.state() == UnitState::Activating {
            unit.state = Some(UnitState::Active);
            self.signal(&container.slot, schedule);
        }
    }

    /// The container's first process exited. systemd ends the unit, and root sweeps the slot.
    pub(super) fn end_unit(
        &mut self,
        container: &ContainerId,
        exit: Exit,
        schedule: &mut Schedule<'_>,
    ) {
        if self.container(container).is_none() {
            return;
        }
        self.container_gone(&container.slot, schedule);
        self.unit(&container.slot).state = Some(UnitState::Deactivating);
        self.signal(&container.slot, schedule);
        let sweep = self.random.wait(3, 300, 20_000);
        schedule.after(sweep, Timer::Swept(container.clone(), exit));
    }

    pub(super) fn swept(
        &mut self,
        container: &ContainerId,
        exit: Exit,
        schedule: &mut Schedule<'_>,
    ) {
        let unrecorded = self.faults.run_full && self.random.chance(500);
        let ContainerId { slot, invocation } = container;
        let unit = self.unit(slot);
        if unit.invocation.as_ref() != Some(invocation) || unit.state() != UnitState::Deactivating {
            return;
        }
        let good = exit == Exit::Status(0);
        if !unrecorded {
            unit.ends.push(EndRecord {
                invocation: invocation.clone(),
                service_result: if good { "success" } else { "exit-code" }.to_owned(),
                exit: exit.clone(),
                memory_peak_bytes: Some(1 << 20),
                oom_kills: 0,
                cpu_ms: None,
                usage: ResourceUse::default(),
                listening_at: None,
                stop_requested: false,
                returns_result: true,
                last_line: None,
                at: clock::now(),
            });
        }
        unit.state = Some(if good {
            UnitState::Inactive
        } else {
            UnitState::Failed
        });
        let start_again = unit.start_queued;
        self.signal(slot, schedule);
        let container = container.clone();
        schedule.emit(SimEvent::UnitEnded {
            container,
            exit,
            recorded: !unrecorded,
        });
        if start_again {
            self.activate(slot, schedule);
        }
    }

    pub(super) fn stop_unit(&mut self, slot: &SlotId, schedule: &mut Schedule<'_>) {
        let is_up = self.unit(slot).is_up();
        let Some(container) = self.newest(slot).filter(|_| is_up) else {
            return;
        };
        let kind = StopKind::Stop;
        schedule.emit(SimEvent::UnitStopRequested {
            container: container.clone(),
            kind,
        });
        self.unit(slot).state = Some(UnitState::Deactivating);
        self.signal(slot, schedule);
        let wait = if self.interrupt(slot, schedule) {
            self.random.wait(300, 8_000, 90_000)
        } else {
            self.random.wait(20, 500, 5_000)
        };
        schedule.after(wait, Timer::End(container, Exit::Status(0)));
    }

    pub(super) fn kill_unit(&mut self, slot: &SlotId, schedule: &mut Schedule<'_>) {
        let Some(container) = self.newest(slot) else {
            return;
        };
        if self.container(&container).is_none() {
            return;
        }
        let kind = StopKind::Kill;
        schedule.emit(SimEvent::UnitStopRequested {
            container: container.clone(),
            kind,
        });
        self.end_unit(&container, Exit::Signal("KILL".to_owned()), schedule);
    }
}
