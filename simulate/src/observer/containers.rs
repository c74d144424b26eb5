//! Units and containers, as the events show them.

use std::collections::BTreeMap;

use runner_controller::pool::{Invocation, PoolName, RunnerId, SlotId};

use crate::event::ContainerId;

/// The progress of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It boots, or its connection was closed without a config.
    Booting,
    /// It waits for its config.
    Asking,
    /// It has its config.
    Configured,
    /// Its listener is connected, and its registration exists.
    Listening,
    /// It runs a job.
    Working,
    /// It has run its job.
    Finished,
}

/// A container that is there.
#[derive(Debug)]
pub(super) struct PresentContainer {
    pub(super) progress: Progress,
    pub(super) runner: Option<RunnerId>,
    /// The daemon has asked systemd to end it.
    pub(super) stopping: bool,
    /// Its connection was closed without a config, so that it ends.
    pub(super) hung_up: bool,
}

/// A unit from its start to its end.
#[derive(Debug)]
pub(super) struct LastingUnit {
    pub(super) invocation: Invocation,
    /// `None` once its processes are gone.
    pub(super) container: Option<PresentContainer>,
}

/// A start of a unit.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) slot: SlotId,
    pub(super) began: u64,
    pub(super) ended: bool,
    /// Root could write its record of the end, and the host has not restarted since.
    pub(super) recorded: bool,
}

/// All units and containers of a history.
#[derive(Default)]
pub(super) struct Containers {
    starts: BTreeMap<Invocation, Start>,
    units: BTreeMap<SlotId, LastingUnit>,
}

impl Containers {
    /// Returns the number of starts.
    pub(super) fn started(&self) -> u64 {
        self.starts.len() as u64
    }

    /// Returns every start.
    pub(super) fn starts(&self) -> &BTreeMap<Invocation, Start> {
        &self.starts
    }

    /// Returns the units that have not ended.
    pub(super) fn units(&self) -> &BTreeMap<SlotId, LastingUnit> {
        &self.units
    }

    /// Returns the number of units of a pool that have not ended.
    pub(super) fn count(&self, pool: &PoolName) -> usize {
        self.units.keys().filter(|slot| slot.pool == *pool).count()
    }

    /// Returns the number of containers of a pool that began after `since`, and have no config so far.
    pub(super) fn starting(&self, pool: &PoolName, since: u64) -> usize {
        let units = self.units.iter().filter(|(slot, _)| slot.pool == *pool);
        let starts = |unit: &LastingUnit| {
            let is_new = self
                .starts
                .get(&unit.invocation)
                .is_some_and(|start| start.began >= since);
            is_new
                && unit.container.as_ref().is_some_and(|container| {
                    let boots = matches!(container.progress, Progress::Booting | Progress::Asking);
                    boots && !container.stopping && !container.hung_up
                })
        };
        units.filter(|(_, unit)| starts(unit)).count()
    }

    /// Returns the progress of a container that is there.
    pub(super) fn progress(&self, id: &ContainerId) -> Option<Progress> {
        self.present(id).map(|container| container.progress)
    }

    /// Returns true if the container is there.
    pub(super) fn is_present(&self, id: &ContainerId) -> bool {
        self.present(id).is_some()
    }

    /// Returns true if the daemon has asked systemd to end the container.
    pub(super) fn is_stopping(&self, id: &ContainerId) -> bool {
        self.present(id).is_some_and(|container| container.stopping)
    }

    /// Returns the registration of a container that is there.
    pub(super) fn runner(&self, id: &ContainerId) -> Option<RunnerId> {
        self.present(id)?.runner
    }

    fn present(&self, id: &ContainerId) -> Option<&PresentContainer> {
        let unit = self.units.get(&id.slot)?;
        let container = unit.container.as_ref()?;
        (unit.invocation == id.invocation).then_some(container)
    }

    /// The host restarted, and root's records are gone.
    pub(super) fn host_rebooted(&mut self) {
        for start in self.starts.values_mut() {
            start.recorded = false;
        }
    }

    fn change(&mut self, id: &ContainerId, change: impl FnOnce(&mut PresentContainer)) {
        let unit = self.units.get_mut(&id.slot);
        let unit = unit.filter(|unit| unit.invocation == id.invocation);
        if let Some(container) = unit.and_then(|unit| unit.container.as_mut()) {
            change(container);
        }
    }

    fn change_of(&mut self, runner: RunnerId, change: impl FnOnce(&mut PresentContainer)) {
        let containers = self.units.values_mut();
        let mut containers = containers.filter_map(|unit| unit.container.as_mut());
        if let Some(container) = containers.find(|c| c.runner == Some(runner)) {
            change(container);
        }
    }

    pub(super) fn start(&mut self, id: &ContainerId, now: u64) {
        let start = Start {
            slot: id.slot.clone(),
            began: now,
            ended: false,
            recorded: false,
        };
        self.starts.insert(id.invocation.clone(), start);
        let container = PresentContainer {
            progress: Progress::Booting,
            runner: None,
            stopping: false,
            hung_up: false,
        };
        let unit = LastingUnit {
            invocation: id.invocation.clone(),
            container: Some(container),
        };
        self.units.insert(id.slot.clone(), unit);
    }

    pub(super) fn stop_requested(&mut self, id: &ContainerId) {
        self.change(id, |container| container.stopping = true);
    }

    pub(super) fn asked(&mut self, id: &ContainerId) {
        self.change(id, |container| container.progress = Progress::Asking);
    }

    pub(super) fn connection_closed(&mut self, id: &ContainerId) {
        self.change(id, |container| {
            container.progress = Progress::Booting;
            container.hung_up = true;
        });
    }

    pub(super) fn configured(&mut self, id: &ContainerId, runner: RunnerId) {
        self.change(id, |container| {
            container.progress = Progress::Configured;
            container.runner = Some(runner);
        });
    }

    pub(super) fn listening(&mut self, runner: RunnerId) {
        self.change_of(runner, |container| container.progress = Progress::Listening);
    }

    pub(super) fn working(&mut self, runner: RunnerId) {
        self.change_of(runner, |container| container.progress = Progress::Working);
    }

    pub(super) fn finished(&mut self, runner: RunnerId) {
        self.change_of(runner, |container| container.progress = Progress::Finished);
    }

    pub(super) fn deregistered(&mut self, runner: RunnerId) {
        self.change_of(runner, |container| {
            if container.progress == Progress::Listening {
                container.progress = Progress::Configured;
            }
        });
    }

    pub(super) fn gone(&mut self, id: &ContainerId) {
        let unit = self.units.get_mut(&id.slot);
        if let Some(unit) = unit.filter(|unit| unit.invocation == id.invocation) {
            unit.container = None;
        }
    }

    pub(super) fn end(&mut self, id: &ContainerId, recorded: bool) {
        if let Some(start) = self.starts.get_mut(&id.invocation) {
            start.ended = true;
            start.recorded = recorded;
        }
        if (self.units.get(&id.slot)).is_some_and(|unit| unit.invocation == id.invocation) {
            self.units.remove(&id.slot);
        }
    }
}
