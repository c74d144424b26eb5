//! systemd's D-Bus interface: the calls we make, and what its signals mean to us.

use std::collections::HashMap;
use std::time::Duration;

use zbus::connection::Builder;
use zbus::message::Type;
use zbus::proxy::CacheProperties;
use zbus::{Connection, MatchRule, Message, OwnedObjectPath, OwnedVariant, Variant};

use crate::pool::SlotId;
use crate::world::{Invocation, UnitState};

/// How long one call may take. systemd answers in milliseconds; a reload of a large host takes
/// seconds.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const UNIT_PATHS: &str = "/org/freedesktop/systemd1/unit";

/// One row of `ListUnitsByPatterns`.
#[derive(Debug, serde::Deserialize, zbus::wire::Type)]
pub(super) struct ListedUnit {
    pub(super) name: String,
    _description: String,
    _load_state: String,
    pub(super) active_state: String,
    _sub_state: String,
    _followed: String,
    pub(super) path: OwnedObjectPath,
    _job: u32,
    pub(super) job_type: String,
    _job_path: OwnedObjectPath,
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    fn list_units_by_patterns(
        &self,
        states: &[&str],
        patterns: &[&str],
    ) -> zbus::Result<Vec<ListedUnit>>;
}

/// Connects to the system bus.
pub(super) async fn connect() -> zbus::Result<Connection> {
    let connecting = Builder::system().method_timeout(CALL_TIMEOUT).build();
    // The timeout of calls begins after the greeting, which a hung bus can hold up as well.
    tokio::time::timeout(CALL_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| {
            Err(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "no greeting from the system bus",
            )
            .into())
        })
}

/// systemd's manager, over a connection.
pub(super) async fn manager(connection: &Connection) -> zbus::Result<ManagerProxy<'static>> {
    ManagerProxy::builder(connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// Asks the bus for the signals that [`Signal::read`] understands.
///
/// Only our units matter, but a match rule knows a whole path or a namespace of whole elements, so
/// all units' changes arrive and the rest is dropped here. One rule per unit would be filtered by
/// the bus, and a thousand of them would pass its limit of 512.
pub(super) async fn add_matches(connection: &Connection) -> zbus::Result<()> {
    let signals = || MatchRule::builder().msg_type(Type::Signal);
    let dbus = zbus::fdo::DBusProxy::new(connection).await?;
    let mut rules = vec![
        signals()
            .sender(SYSTEMD)
            .interface("org.freedesktop.DBus.Properties")
            .member("PropertiesChanged")
            .path_namespace(UNIT_PATHS)
            .arg(0, UNIT)
            .build()?,
        signals()
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .arg(0, SYSTEMD)
            .build()?,
    ];
    for member in ["JobRemoved", "UnitRemoved", "Reloading"] {
        rules.push(
            signals()
                .sender(SYSTEMD)
                .interface(MANAGER)
                .member(member)
                .build()?,
        );
    }
    for rule in rules {
        dbus.add_match_rule(rule).await?;
    }
    Ok(())
}

/// The invocation of a loaded unit; `None` if it was never started.
pub(super) async fn invocation(
    connection: &Connection,
    unit: &OwnedObjectPath,
) -> zbus::Result<Option<Invocation>> {
    let reply = connection
        .call_method(
            Some(SYSTEMD),
            unit,
            Some("org.freedesktop.DBus.Properties"),
            "Get",
            &(UNIT, "InvocationID"),
        )
        .await?;
    let value: OwnedVariant = reply.body().deserialize()?;
    Ok(Vec::<u8>::try_from(value).ok().as_deref().and_then(hex))
}

/// What a message of the bus means to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signal {
    /// A unit of ours is in this state.
    Unit {
        slot: SlotId,
        state: UnitState,
        invocation: Option<Invocation>,
    },
    /// A unit of ours was unloaded, by its end or by a reload that will load it again.
    Unloaded(SlotId),
    /// A job of ours ended other than well.
    JobFailed { slot: SlotId, result: String },
    /// systemd has read its units anew; signals of the time between are not to be trusted.
    Reloaded,
    /// systemd is on the bus again (after re-executing itself) and knows no subscribers.
    Appeared,
}

impl Signal {
    /// Reads a message; `None` if it does not concern us or is not what it should be.
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
                        .as_deref()
                        .and_then(hex),
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

/// What `ActiveState` and the unit's job say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The unit is in this state.
    State(UnitState),
    /// It is down, and a job for it is queued or just ending.
    Between,
}

impl Told {
    /// The state, unless the next signal tells it better.
    fn settled(self) -> Option<UnitState> {
        match self {
            Self::State(state) => Some(state),
            Self::Between => None,
        }
    }
}

/// Reads `ActiveState`; `None` for a word that systemd does not have.
///
/// A start is announced first with its old state and either invocation, while its job is still
/// queued, and only then as `activating`. Told as it stands, that would say that the new life is
/// over; so would `failed` before the job that it failed is removed. `job` (there is one) tells
/// both apart, and another signal always follows: a new state, or the end of the job.
pub(super) fn state_of(active_state: &str, job: bool) -> Option<Told> {
    Some(match active_state {
        "inactive" | "failed" | "maintenance" if job => Told::Between,
        "inactive" | "maintenance" => Told::State(UnitState::Inactive),
        "failed" => Told::State(UnitState::Failed),
        "activating" => Told::State(UnitState::Activating),
        "active" | "reloading" | "refreshing" => Told::State(UnitState::Active),
        "deactivating" => Told::State(UnitState::Deactivating),
        _ => return None,
    })
}

/// The slot whose unit has this object path: `…/unit/runner_2dci_403_2eservice`.
fn slot_of_path(path: &str) -> Option<SlotId> {
    let escaped = path.strip_prefix(UNIT_PATHS)?.strip_prefix('/')?;
    // The one test that the changes of a host's other units cost.
    escaped.strip_prefix("runner_2d")?;
    SlotId::from_unit(&unescape(escaped)?)
}

/// Undoes systemd's `bus_label_escape`: `_2d` is `-`.
fn unescape(label: &str) -> Option<String> {
    let mut text = Vec::with_capacity(label.len());
    let mut bytes = label.bytes();
    while let Some(byte) = bytes.next() {
        text.push(if byte == b'_' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(text).ok()
}

fn hex(bytes: &[u8]) -> Option<Invocation> {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(32);
    for byte in bytes {
        write!(text, "{byte:02x}").ok()?;
    }
    Invocation::parse(&text)
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
    fn a_change_of_our_unit_is_read_whole_from_its_signal() {
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
    fn a_queued_start_tells_nothing_yet() {
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
    fn other_units_say_nothing_to_us() {
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
    fn the_managers_signals_are_told_apart() {
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
        // A signal with a body of another shape is dropped, not trusted.
        assert_eq!(manager_signal("UnitRemoved", &7u32), None);
    }

    proptest! {
        #[test]
        fn any_unit_path_is_read_without_panic(label in "[_a-z0-9]{0,40}") {
            let _ = slot_of_path(&format!("{UNIT_PATHS}/runner_2d{label}"));
        }

        #[test]
        fn our_own_paths_are_found_again(pool in "[a-z][a-z0-9]{0,7}", number in 1u16..=999) {
            let path = format!("{UNIT_PATHS}/runner_2d{pool}_40{number}_2eservice");
            let slot: SlotId = format!("{pool}-{number}").parse().unwrap();
            prop_assert_eq!(slot_of_path(&path), Some(slot));
        }
    }
}
