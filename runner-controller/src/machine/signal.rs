//! systemd's signals and states, reduced to what they mean for a slot.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use zbus::message::Type;
use zbus::{Message, OwnedObjectPath, Variant};

use super::bus::{MANAGER, SYSTEMD, UNIT, UNIT_PATHS, invocation_of};
use crate::pool::SlotId;
use crate::world::{Invocation, UnitState};

/// A signal about our units, or about systemd itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signal {
    /// The unit of a slot is in this state.
    Unit {
        slot: SlotId,
        state: UnitState,
        invocation: Option<Invocation>,
    },
    /// The unit of a slot was unloaded: by its end, or by a reload that loads it again.
    Unloaded(SlotId),
    /// The systemd job of a slot failed.
    JobFailed { slot: SlotId, result: String },
    /// systemd has reloaded its units; signals sent meanwhile are unreliable.
    Reloaded,
    /// systemd is on the bus again after re-executing itself, without subscribers.
    Appeared,
}

impl Signal {
    /// Reads a message; `None` if it is about something else or malformed.
    pub(super) fn read(message: &Message) -> Option<Self> {
        let header = message.header();
        if header.message_type() != Type::Signal {
            return None;
        }
        let body = message.body();
        match (header.interface()?.as_str(), header.member()?.as_str()) {
            ("org.freedesktop.DBus.Properties", "PropertiesChanged") => {
                let slot = slot_of_path(header.path()?.as_str())?;
                let (interface, changed, _): (&str, HashMap<&str, Variant<'_>>, Vec<&str>) =
                    body.deserialize().ok()?;
                (interface == UNIT).then_some(())?;
                let state = changed.get("ActiveState")?.downcast_ref::<&str>().ok()?;
                let job = match changed.get("Job") {
                    Some(Variant::Structure(job)) => job.fields().first()?.downcast_ref().ok()?,
                    _ => 0u32,
                };
                let invocation = match changed.get("InvocationID") {
                    Some(Variant::Array(bytes)) => Vec::<u8>::try_from(bytes.try_clone().ok()?)
                        .ok()
                        .and_then(invocation_of),
                    _ => None,
                };
                Some(Self::Unit {
                    slot,
                    state: state_of(state, job != 0)?.settled()?,
                    invocation,
                })
            }
            (MANAGER, "UnitRemoved") => {
                let (unit, _): (&str, OwnedObjectPath) = body.deserialize().ok()?;
                Some(Self::Unloaded(SlotId::from_unit(unit)?))
            }
            (MANAGER, "JobRemoved") => {
                let (_, _, unit, result): (u32, OwnedObjectPath, &str, &str) =
                    body.deserialize().ok()?;
                (result != "done").then_some(Self::JobFailed {
                    slot: SlotId::from_unit(unit)?,
                    result: result.to_owned(),
                })
            }
            (MANAGER, "Reloading") => {
                let reloading: bool = body.deserialize().ok()?;
                (!reloading).then_some(Self::Reloaded)
            }
            ("org.freedesktop.DBus", "NameOwnerChanged") => {
                let (name, _, owner): (&str, &str, &str) = body.deserialize().ok()?;
                (name == SYSTEMD && !owner.is_empty()).then_some(Self::Appeared)
            }
            _ => None,
        }
    }
}

/// State of a unit by its `ActiveState` and its systemd job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReportedState {
    /// The unit is in this state.
    State(UnitState),
    /// The unit is down, and a job for it is queued or just ending.
    Changing,
}

impl ReportedState {
    /// Returns the state; `None` if the next signal has it.
    fn settled(self) -> Option<UnitState> {
        match self {
            Self::State(state) => Some(state),
            Self::Changing => None,
        }
    }
}

/// Reads `ActiveState`; `None` for an unknown word.
///
/// systemd signals a start first with the old state and either invocation while its job is queued, and
/// then as `activating`. The first signal alone would mean that the new runner has ended already. The
/// same holds for `failed` before the failed job is removed. `has_job` tells these apart. Another signal
/// always follows: a new state, or the end of the job.
pub(super) fn state_of(active_state: &str, has_job: bool) -> Option<ReportedState> {
    Some(match active_state {
        "inactive" | "failed" | "maintenance" if has_job => ReportedState::Changing,
        "inactive" | "maintenance" => ReportedState::State(UnitState::Inactive),
        "failed" => ReportedState::State(UnitState::Failed),
        "activating" => ReportedState::State(UnitState::Activating),
        "active" | "reloading" | "refreshing" => ReportedState::State(UnitState::Active),
        "deactivating" => ReportedState::State(UnitState::Deactivating),
        _ => return None,
    })
}

/// Returns the slot whose unit has this object path: `…/unit/runner_2dci_403_2eservice`.
fn slot_of_path(path: &str) -> Option<SlotId> {
    let escaped = path.strip_prefix(UNIT_PATHS)?.strip_prefix('/')?;
    // Changes of other units cost this comparison alone.
    escaped.strip_prefix("runner_2d")?;
    // systemd's `bus_label_escape` writes `-` as `_2d`: percent-encoding with another sign. A label has
    // no percent sign, and a malformed escape keeps one, which no unit of a slot has.
    let label = escaped.replace('_', "%");
    SlotId::from_unit(&percent_decode_str(&label).decode_utf8().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATH: &str = "/org/freedesktop/systemd1/unit/runner_2dci_403_2eservice";

    fn slot() -> SlotId {
        "ci-3".parse().unwrap()
    }

    fn changed(path: &str, properties: HashMap<&str, Variant<'_>>) -> Option<Signal> {
        let message = Message::signal(path, "org.freedesktop.DBus.Properties", "PropertiesChanged")
            .build(&(UNIT, properties, Vec::<&str>::new()))
            .unwrap();
        Signal::read(&message)
    }

    fn manager_signal<B: serde::Serialize + zbus::wire::DynamicType>(
        member: &str,
        body: &B,
    ) -> Option<Signal> {
        let message = Message::signal("/org/freedesktop/systemd1", MANAGER, member)
            .build(body)
            .unwrap();
        Signal::read(&message)
    }

    fn no_job<'a>() -> Variant<'a> {
        let path = OwnedObjectPath::try_from("/").unwrap();
        Variant::new((0u32, path))
    }

    #[test]
    fn a_signal_about_a_slots_unit_has_state_and_invocation() {
        let signal = changed(
            PATH,
            HashMap::from([
                ("ActiveState", Variant::new("inactive")),
                ("InvocationID", Variant::new(vec![0xabu8; 16])),
                ("Job", no_job()),
            ]),
        );
        assert_eq!(
            signal,
            Some(Signal::Unit {
                slot: slot(),
                state: UnitState::Inactive,
                invocation: Invocation::parse(&"ab".repeat(16)),
            })
        );
    }

    #[test]
    fn a_queued_start_is_not_a_state() {
        let job = OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/81").unwrap();
        for old_state in ["inactive", "failed"] {
            let signal = changed(
                PATH,
                HashMap::from([
                    ("ActiveState", Variant::new(old_state)),
                    ("InvocationID", Variant::new(vec![1u8; 16])),
                    ("Job", Variant::new((81u32, job.clone()))),
                ]),
            );
            assert_eq!(signal, None);
        }
    }

    #[test]
    fn a_unit_that_never_started_has_no_invocation() {
        let signal = changed(
            PATH,
            HashMap::from([
                ("ActiveState", Variant::new("inactive")),
                ("InvocationID", Variant::new(Vec::<u8>::new())),
            ]),
        );
        let Some(Signal::Unit { invocation, .. }) = signal else {
            panic!("{signal:?}");
        };
        assert_eq!(invocation, None);
    }

    #[test]
    fn signals_of_other_units_are_ignored() {
        for path in [
            "/org/freedesktop/systemd1/unit/ssh_2eservice",
            "/org/freedesktop/systemd1/unit/runner_2dci_403_2esocket",
            "/org/freedesktop/systemd1/unit/runner_2dci_4003_2eservice",
            "/org/freedesktop/systemd1/unit",
        ] {
            let properties = HashMap::from([("ActiveState", Variant::new("active"))]);
            assert_eq!(changed(path, properties), None, "{path}");
        }
    }

    #[test]
    fn the_signals_of_the_manager_are_told_apart() {
        let path = OwnedObjectPath::try_from("/x").unwrap();
        assert_eq!(
            manager_signal("UnitRemoved", &("runner-ci@3.service", &path)),
            Some(Signal::Unloaded(slot()))
        );
        assert_eq!(
            manager_signal(
                "JobRemoved",
                &(1u32, &path, "runner-ci@3.service", "dependency")
            ),
            Some(Signal::JobFailed {
                slot: slot(),
                result: "dependency".into()
            })
        );
        assert_eq!(
            manager_signal("JobRemoved", &(1u32, &path, "runner-ci@3.service", "done")),
            None
        );
        assert_eq!(manager_signal("Reloading", &true), None);
        assert_eq!(manager_signal("Reloading", &false), Some(Signal::Reloaded));
        // A signal with a malformed body is ignored.
        assert_eq!(manager_signal("UnitRemoved", &7u32), None);
    }

    proptest! {
        #[test]
        fn any_unit_path_is_read_without_panic(label in "[_a-z0-9]{0,40}") {
            let _ = slot_of_path(&format!("{UNIT_PATHS}/runner_2d{label}"));
        }

        #[test]
        fn the_path_of_every_slot_is_read_back(pool in "[a-z][a-z0-9]{0,7}", number in 1u16..=999) {
            let path = format!("{UNIT_PATHS}/runner_2d{pool}_40{number}_2eservice");
            let slot: SlotId = format!("{pool}-{number}").parse().unwrap();
            prop_assert_eq!(slot_of_path(&path), Some(slot));
        }
    }
}
