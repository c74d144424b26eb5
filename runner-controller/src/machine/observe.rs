//! Units of slots as systemd has them now, with the records that root wrote for them.

use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};

use crate::config::Config;
use crate::pool::SlotId;
use crate::slot_records;
use crate::world::{Invocation, UnitObservation, UnitState};

use super::bus::{self, ListedUnit, ManagerProxy};
use super::signal::{ReportedState, state_of};

/// Questions about units that wait for their answers at once.
const QUESTIONS: usize = 64;

/// Pattern of the units of every pool, former pools included, and of little else.
pub(super) const EVERY_UNIT: &str = "runner-*@*.service";

/// Returns the loaded units of slots that match a pattern.
///
/// A list by pattern loads no unit. `GetUnit`, or reading a property of an unloaded unit, loads it, and
/// its unloading a moment later would be another signal to follow.
pub(super) async fn loaded(
    config: &Config,
    manager: &ManagerProxy<'static>,
    pattern: &str,
) -> zbus::Result<Vec<UnitObservation>> {
    let units = manager.list_units_by_patterns(&[], &[pattern]).await?;
    let of_slots = units
        .into_iter()
        .filter_map(|unit| Some((SlotId::from_unit(&unit.name)?, unit)));
    // One question after the other would take most of the start of a daemon with many runners.
    stream::iter(of_slots)
        .map(|(slot, unit)| observe(config, manager, slot, unit))
        .buffered(QUESTIONS)
        .try_filter_map(|observation| future::ready(Ok(observation)))
        .try_collect()
        .await
}

/// Returns the observation of a loaded unit; `None` if its state says nothing about a runner.
async fn observe(
    config: &Config,
    manager: &ManagerProxy<'static>,
    slot: SlotId,
    unit: ListedUnit,
) -> zbus::Result<Option<UnitObservation>> {
    let is_starting = unit.job_type == "start";
    Ok(match state_of(&unit.active_state, is_starting) {
        None => None,
        Some(ReportedState::Changing) => Some(UnitObservation {
            slot,
            state: UnitState::Activating,
            invocation: None,
            start: None,
            end: None,
        }),
        Some(ReportedState::State(UnitState::Inactive)) => Some(absent(config, slot)),
        Some(ReportedState::State(
            state @ (UnitState::Activating
            | UnitState::Active
            | UnitState::Deactivating
            | UnitState::Failed),
        )) => {
            let connection = manager.inner().connection();
            let invocation = bus::invocation(connection, &unit.path).await?;
            Some(with_records(config, slot, state, invocation))
        }
    })
}

/// Returns the observation of a slot without a loaded unit.
pub(super) fn absent(config: &Config, slot: SlotId) -> UnitObservation {
    with_records(config, slot, UnitState::Inactive, None)
}

/// Returns an observation with root's records of this invocation. They are two small files on tmpfs,
/// so reading them here is quicker than passing them to another thread.
pub(super) fn with_records(
    config: &Config,
    slot: SlotId,
    state: UnitState,
    invocation: Option<Invocation>,
) -> UnitObservation {
    let dir = config.records_dir().join(slot.to_string());
    let records = slot_records::read(&dir, invocation.as_ref());
    UnitObservation {
        slot,
        state,
        invocation,
        start: records.start,
        end: records.end,
    }
}
