//! systemd's D-Bus interface: the connection, the calls and the subscription.

use std::time::Duration;

use zbus::connection::Builder;
use zbus::message::Type;
use zbus::proxy::CacheProperties;
use zbus::{Connection, MatchRule, OwnedObjectPath, OwnedVariant};

use crate::world::Invocation;

/// Timeout for one call. systemd answers in milliseconds; a reload of a large host takes seconds.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
/// Parent of all units' object paths.
pub(super) const UNIT_PATHS: &str = "/org/freedesktop/systemd1/unit";

/// Row of `ListUnitsByPatterns`.
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
    // The timeout of calls does not cover the greeting, which a hung bus delays as well.
    tokio::time::timeout(CALL_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| {
            Err(
                std::io::Error::new(std::io::ErrorKind::TimedOut, "the system bus did not greet")
                    .into(),
            )
        })
}

/// Returns the proxy of systemd's manager.
pub(super) async fn manager(connection: &Connection) -> zbus::Result<ManagerProxy<'static>> {
    ManagerProxy::builder(connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// Subscribes to the signals that [`super::signal`] reads.
///
/// A match rule takes a whole path or a namespace of whole elements, so the changes of all units arrive
/// and those of other units are dropped here. One rule for each slot would let the bus filter, but a
/// thousand of them would exceed its limit of 512.
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

/// Returns the invocation of a loaded unit; `None` if the unit was never started.
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
    let bytes = Vec::<u8>::try_from(value).ok();
    Ok(bytes.and_then(invocation_of))
}

/// Returns the invocation with this value of `InvocationID`, which is empty before the first start.
pub(super) fn invocation_of(bytes: Vec<u8>) -> Option<Invocation> {
    let id = u128::from_be_bytes(bytes.try_into().ok()?);
    Invocation::parse(&format!("{id:032x}"))
}
