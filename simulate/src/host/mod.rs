//! The host: systemd's units, the containers in them, and the records that root writes of each start and end.
//!
//! ```text
//! bus        calls of the daemon to systemd, and systemd's signals
//! unit       units: start, stop, sweep
//! container  containers: boot, listener, job
//! ```

mod bus;
mod container;
mod unit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runner_controller::config::{Config, PoolConfig};
use runner_controller::pool::{
    Exit, Invocation, JobNote, RecordedEnd, Resource, RunnerId, SlotId, UnitObservation, UnitState,
};
use runner_controller::world::Event;
use tokio::sync::oneshot;

use crate::event::{ContainerId, JobId, SimEvent};
use crate::random::{Random, Stream};
use crate::schedule::Scheduler;
use crate::unavailable::Unavailable;

pub(crate) use bus::BusCall;
use container::{Container, ContainerState};
use unit::Unit;

pub(crate) use unit::RECORDS_KEPT;

/// The schedule as the host sees it.
type Schedule<'a> = dyn Scheduler<Timer> + 'a;

/// A timer of the host.
pub(crate) enum Timer {
    /// A call arrives at systemd.
    Call(BusCall),
    /// systemd reads the rest of what belongs to the states.
    ReadUnits(
        BTreeMap<SlotId, UnitState>,
        oneshot::Sender<Result<Vec<UnitObservation>, Unavailable>>,
    ),
    /// A signal reaches the daemon.
    Signal(SlotId),
    /// The container is ready, and its network.
    Active(ContainerId),
    /// The container asks for its config.
    Ask(ContainerId),
    /// The runner starts its listener.
    Listen(ContainerId),
    /// The job-started hook writes its line.
    ReportJob(ContainerId, JobNote),
    /// The job's last step is done.
    FinishJob(ContainerId, JobId),
    /// The container ends.
    End(ContainerId, Exit),
    /// The container ends, if it still is in this state.
    EndIf(ContainerId, ContainerState, Exit),
    /// `RuntimeMaxSec=` has passed.
    RuntimeMax(ContainerId),
    /// Root has swept the slot.
    Swept(ContainerId, Exit),
}

/// The host's faults.
#[derive(Debug, Default)]
struct Faults {
    bus_down: bool,
    signals_lost: bool,
    boots_fail: bool,
    boots_hang: bool,
    listeners_offline: bool,
    memory_short: bool,
    firewall_wrong: bool,
    run_full: bool,
}

/// A part of the host that a mutation replaces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Returns the template's `RuntimeMaxSec=`.
    pub(crate) runtime_max: fn(&PoolConfig) -> Duration,
    /// polkit lets the daemon start slots that are not configured.
    pub(crate) allows_any_slot: bool,
}

/// The host.
pub(crate) struct Host {
    random: Random,
    rules: Rules,
    units: BTreeMap<SlotId, Unit>,
    faults: Faults,
    config: Arc<Config>,
    daemon_config: Option<Arc<Config>>,
    boots: u64,
    starts: u64,
    last_call_at: u64,
}

impl Host {
    /// Returns a host without units.
    #[must_use]
    pub(crate) fn new(seed: u64, config: Arc<Config>, rules: Rules) -> Self {
        Self {
            random: Random::new(seed, Stream::Host),
            rules,
            units: BTreeMap::new(),
            faults: Faults::default(),
            config,
            daemon_config: None,
            boots: 0,
            starts: 0,
            last_call_at: 0,
        }
    }

    /// Returns this boot's id.
    #[must_use]
    pub(crate) fn boot_id(&self) -> String {
        format!("boot-{}", self.boots)
    }

    /// Root wrote another configuration.
    pub(crate) fn configured(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    /// A daemon started. It has heard nothing yet, so root's checks are told to it.
    pub(crate) fn daemon_started(&mut self, config: Arc<Config>, schedule: &mut Schedule<'_>) {
        self.daemon_config = Some(config);
        for unit in self.units.values_mut() {
            unit.forget_signals();
        }
        self.tell_firewall(schedule);
        self.tell_resources(schedule);
    }

    /// The daemon ended.
    pub(crate) fn daemon_ended(&mut self) {
        self.daemon_config = None;
    }

    /// A timer is due.
    pub(crate) fn timer(&mut self, timer: Timer, schedule: &mut Schedule<'_>) {
        match timer {
            Timer::Call(call) => self.call_arrives(call, schedule),
            Timer::ReadUnits(states, reply) => self.read_units(&states, reply, schedule),
            Timer::Signal(slot) => self.deliver_signal(&slot, false, schedule),
            Timer::Active(container) => self.active(&container, schedule),
            Timer::Ask(container) => self.ask(container, schedule),
            Timer::Listen(container) => self.listen(container, schedule),
            Timer::ReportJob(container, note) => {
                if self.container(&container).is_some() {
                    schedule.emit(SimEvent::JobReported { container, note });
                }
            }
            Timer::FinishJob(container, job) => self.finish_job(container, job, schedule),
            Timer::End(container, exit) => self.end_unit(&container, exit, schedule),
            Timer::EndIf(container, state, exit) => {
                let there = self.container(&container);
                if there.is_some_and(|there| there.state == state) {
                    self.end_unit(&container, exit, schedule);
                }
            }
            Timer::RuntimeMax(container) => {
                if self.container(&container).is_some() {
                    schedule.emit(SimEvent::UnitTimedOut(container.clone()));
                    self.end_unit(&container, Exit::Signal("TERM".to_owned()), schedule);
                }
            }
            Timer::Swept(container, exit) => self.swept(&container, exit, schedule),
        }
    }

    /// The host loses power: everything that ran is gone, and `/run` with it.
    pub(crate) fn reboot(&mut self, schedule: &mut Schedule<'_>) {
        let slots: Vec<SlotId> = self.units.keys().cloned().collect();
        for slot in &slots {
            let lasting = self.unit(slot).is_lasting();
            let container = self.newest(slot);
            self.container_gone(slot, schedule);
            if let (true, Some(container)) = (lasting, container) {
                let exit = Exit::Unknown;
                schedule.emit(SimEvent::UnitEnded {
                    container,
                    exit,
                    recorded: false,
                });
            }
        }
        self.units.clear();
        self.boots += 1;
    }

    /// The system bus is down, or up again.
    pub(crate) fn set_bus_down(&mut self, down: bool, schedule: &mut Schedule<'_>) {
        let was_down = std::mem::replace(&mut self.faults.bus_down, down);
        if was_down && !down {
            self.tell_all_units(schedule);
        }
    }

    /// Some signals get lost.
    pub(crate) fn set_signals_lost(&mut self, lost: bool) {
        self.faults.signals_lost = lost;
    }

    /// Containers end while they boot, or hang; or boot again.
    pub(crate) fn set_boots_fail(&mut self, fail: bool, hang: bool) {
        (self.faults.boots_fail, self.faults.boots_hang) = (fail, hang);
    }

    /// Listeners do not reach GitHub.
    pub(crate) fn set_listeners_offline(&mut self, offline: bool) {
        self.faults.listeners_offline = offline;
    }

    /// `/run` is full.
    pub(crate) fn set_run_full(&mut self, full: bool) {
        self.faults.run_full = full;
    }

    /// The firewall differs from the configured rules.
    pub(crate) fn set_firewall_wrong(&mut self, wrong: bool, schedule: &mut Schedule<'_>) {
        self.faults.firewall_wrong = wrong;
        self.tell_firewall(schedule);
    }

    /// The host runs short of memory.
    pub(crate) fn set_memory_short(&mut self, short: bool, schedule: &mut Schedule<'_>) {
        self.faults.memory_short = short;
        self.tell_resources(schedule);
    }

    /// All faults end.
    pub(crate) fn calm(&mut self, schedule: &mut Schedule<'_>) {
        let was_down = self.faults.bus_down;
        self.faults = Faults::default();
        if was_down {
            self.tell_all_units(schedule);
        }
        self.tell_firewall(schedule);
        self.tell_resources(schedule);
    }

    /// A running container dies.
    pub(crate) fn kill_container(&mut self, draw: u64, exit: Exit, schedule: &mut Schedule<'_>) {
        let running: Vec<SlotId> = self
            .units
            .iter()
            .filter(|(_, unit)| unit.is_up())
            .map(|(slot, _)| slot.clone())
            .collect();
        let chosen = usize::try_from(draw % (running.len() as u64).max(1)).unwrap_or(0);
        if let Some(container) = running.get(chosen).and_then(|slot| self.newest(slot)) {
            self.end_unit(&container, exit, schedule);
        }
    }

    /// Returns every end that root has on record.
    pub(crate) fn ends(&self) -> Vec<RecordedEnd> {
        let units = self.units.iter();
        units
            .flat_map(|(slot, unit)| unit.recorded_ends(slot))
            .collect()
    }

    fn tell_firewall(&self, schedule: &mut Schedule<'_>) {
        let problem = self
            .faults
            .firewall_wrong
            .then(|| "a rule is gone".to_owned());
        schedule.emit(SimEvent::Told(Event::Firewall { problem }));
    }

    fn tell_resources(&self, schedule: &mut Schedule<'_>) {
        let reason = "64 MiB are left".to_owned();
        let memory = (self.faults.memory_short).then_some((Resource::Memory, reason));
        let short = memory.into_iter().collect();
        schedule.emit(SimEvent::Told(Event::Shortages(short)));
    }

    fn unit(&mut self, slot: &SlotId) -> &mut Unit {
        self.units.entry(slot.clone()).or_default()
    }

    /// Returns the container of the slot's newest start, whether it still is there or not.
    fn newest(&self, slot: &SlotId) -> Option<ContainerId> {
        let invocation: Option<&Invocation> = self.units.get(slot)?.invocation.as_ref();
        Some(ContainerId {
            slot: slot.clone(),
            invocation: invocation?.clone(),
        })
    }

    /// Returns the container, if it still is there.
    fn container(&mut self, id: &ContainerId) -> Option<&mut Container> {
        let container = self.units.get_mut(&id.slot)?.container.as_mut()?;
        (container.invocation == id.invocation).then_some(container)
    }

    /// Returns the container that listens for this registration.
    fn listener(&self, runner: RunnerId) -> Option<ContainerId> {
        self.units.iter().find_map(|(slot, unit)| {
            let container = unit.container.as_ref()?;
            (container.runner == Some(runner)).then(|| ContainerId {
                slot: slot.clone(),
                invocation: container.invocation.clone(),
            })
        })
    }
}
