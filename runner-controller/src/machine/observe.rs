//! Units of slots as systemd has them now, with the records that root wrote for them.

use crate::config::Config;
use crate::pool::SlotId;
use crate::slot_records;
use crate::world::{Invocation, UnitObservation, UnitState};

use super::bus::{self, ManagerProxy};
use super::signal::{ReportedState, state_of};

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
    let mut observations = Vec::new();
    for unit in manager.list_units_by_patterns(&[], &[pattern]).await? {
        let Some(slot) = SlotId::from_unit(&unit.name) else {
            continue;
        };
        let is_starting = unit.job_type == "start";
        observations.push(match state_of(&unit.active_state, is_starting) {
            None => continue,
            Some(ReportedState::Changing) => UnitObservation {
                slot,
                state: UnitState::Activating,
                invocation: None,
                start: None,
                end: None,
            },
            Some(ReportedState::State(UnitState::Inactive)) => absent(config, slot),
            Some(ReportedState::State(
                state @ (UnitState::Activating
                | UnitState::Active
                | UnitState::Deactivating
                | UnitState::Failed),
            )) => {
                let connection = manager.inner().connection();
                let invocation = bus::invocation(connection, &unit.path).await?;
                with_records(config, slot, state, invocation)
            }
        });
    }
    Ok(observations)
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
