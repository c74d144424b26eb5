//! The units and sockets of a simulated host, which keeps a few words for each slot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock;
use crate::config::Config;
use crate::pool::{PoolName, SlotId, Timestamp};
use crate::world::{
    EndRecord, Event, Exit, Failure, Handshake, Invocation, JitConfig, Machines, RecordedEnd,
    ResourceUse, StartRecord, UnitObservation, UnitState,
};

/// Time until a container asks for its config.
const BOOT: Duration = Duration::from_millis(10);

/// No container waits for a config.
#[derive(Debug, thiserror::Error)]
#[error("no container waits")]
pub(super) struct NoneWaits;

impl Failure for NoneWaits {
    fn is_transient(&self) -> bool {
        false
    }
}

struct Unit {
    invocation: Invocation,
    started_at: Timestamp,
    state: UnitState,
    waits: bool,
}

struct State {
    events: Option<mpsc::Sender<Event>>,
    generations: BTreeMap<PoolName, String>,
    slots: Vec<SlotId>,
    units: BTreeMap<SlotId, Unit>,
    ends: BTreeMap<SlotId, EndRecord>,
    /// Slots whose containers never ask for a config.
    hanging: Vec<SlotId>,
    starts: u64,
}

/// A host. Copies share its state.
#[derive(Clone)]
pub(super) struct Host(Arc<Mutex<State>>);

impl Host {
    /// Returns a host without containers. Those in the slots `hanging` will never ask for a config.
    pub(super) fn new(config: &Config, hanging: Vec<SlotId>) -> Self {
        let pools = config.pools.iter();
        Self(Arc::new(Mutex::new(State {
            events: None,
            generations: pools
                .map(|pool| (pool.name.clone(), pool.generation()))
                .collect(),
            slots: config.slots().collect(),
            units: BTreeMap::new(),
            ends: BTreeMap::new(),
            hanging,
            starts: 0,
        })))
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    /// Tells the next daemon, beginning with the containers that wait for a config.
    pub(super) fn connect(&self, events: mpsc::Sender<Event>) {
        self.with(|state| {
            for (slot, unit) in &state.units {
                if unit.waits {
                    let slot = slot.clone();
                    events.try_send(Event::ConfigRequested { slot }).unwrap();
                }
            }
            state.events = Some(events);
        });
    }

    async fn send(&self, event: Event) {
        if let Some(events) = self.with(|state| state.events.clone()) {
            // A daemon that stops takes no events.
            let _ = events.send(event).await;
        }
    }

    /// Returns what systemd and root's records tell of a slot.
    pub(super) fn observation(&self, slot: &SlotId) -> UnitObservation {
        self.with(|state| {
            let unit = state.units.get(slot);
            let start = |unit: &Unit| StartRecord {
                invocation: unit.invocation.clone(),
                generation: state.generations[&slot.pool].clone(),
                returns_result: true,
                at: unit.started_at,
            };
            UnitObservation {
                slot: slot.clone(),
                state: unit.map_or(UnitState::Inactive, |unit| unit.state),
                invocation: unit.map(|unit| unit.invocation.clone()),
                start: unit.map(start),
                end: state.ends.get(slot).filter(|_| unit.is_none()).cloned(),
            }
        })
    }

    /// Tells that a job begins in a slot, or tells it again.
    pub(super) async fn job_starts(&self, slot: &SlotId, run: u64) {
        let (slot, note) = (slot.clone(), super::note(run));
        self.send(Event::JobStarted { slot, note }).await;
    }

    /// Ends the container in a slot as after a good job.
    pub(super) async fn ends(&self, slot: &SlotId) {
        self.with(|state| {
            let Some(unit) = state.units.remove(slot) else {
                return;
            };
            let end = EndRecord {
                invocation: unit.invocation,
                service_result: "exit-code".into(),
                exit: Exit::Status(100),
                memory_peak_bytes: Some(1 << 30),
                oom_kills: 0,
                cpu_ms: Some(40_000),
                usage: ResourceUse::default(),
                listening_at: None,
                stop_requested: false,
                returns_result: true,
                last_line: None,
                at: clock::now(),
            };
            state.ends.insert(slot.clone(), end);
        });
        self.send(Event::Unit(self.observation(slot))).await;
    }
}

impl Machines for Host {
    type Error = NoneWaits;

    async fn start(&self, slot: &SlotId) -> Result<(), NoneWaits> {
        let hangs = self.with(|state| {
            state.starts += 1;
            let unit = Unit {
                invocation: Invocation::parse(&format!("{:032x}", state.starts)).unwrap(),
                started_at: clock::now(),
                state: UnitState::Activating,
                waits: false,
            };
            state.units.insert(slot.clone(), unit);
            state.hanging.contains(slot)
        });
        self.send(Event::Unit(self.observation(slot))).await;
        if hangs {
            return Ok(());
        }
        let (host, slot) = (self.clone(), slot.clone());
        tokio::spawn(async move {
            tokio::time::sleep(BOOT).await;
            host.with(|state| {
                if let Some(unit) = state.units.get_mut(&slot) {
                    (unit.state, unit.waits) = (UnitState::Active, true);
                }
            });
            host.send(Event::Unit(host.observation(&slot))).await;
            host.send(Event::ConfigRequested { slot }).await;
        });
        Ok(())
    }

    async fn stop(&self, slot: &SlotId) -> Result<(), NoneWaits> {
        self.ends(slot).await;
        Ok(())
    }

    async fn kill(&self, slot: &SlotId) -> Result<(), NoneWaits> {
        self.ends(slot).await;
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<UnitObservation>, NoneWaits> {
        let slots = self.with(|state| state.slots.clone());
        Ok(slots.iter().map(|slot| self.observation(slot)).collect())
    }

    async fn ends(&self) -> Vec<RecordedEnd> {
        Vec::new()
    }
}

impl Handshake for Host {
    type Error = NoneWaits;

    async fn prepare(&self, _: &SlotId) -> Result<(), NoneWaits> {
        Ok(())
    }

    async fn answer(&self, slot: &SlotId, _: JitConfig) -> Result<(), NoneWaits> {
        self.with(|state| {
            let unit = state.units.get_mut(slot).filter(|unit| unit.waits);
            unit.map(|unit| unit.waits = false).ok_or(NoneWaits)
        })
    }
}
