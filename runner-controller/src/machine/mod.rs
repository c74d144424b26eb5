//! [`Machines`] over systemd's D-Bus interface: start, stop, kill, look, and sights of changes.
//!
//! Nothing here polls. One task keeps a connection to the system bus, folds systemd's signals into
//! "this slot changed", and sends a [`Event`] of what it is now, with the life records that root
//! wrote ([`crate::lives`]). When the bus goes away it reconnects with a backoff, and whatever
//! happened meanwhile arrives as one full look.

mod bus;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinHandle;
use zbus::{Connection, fdo};

use crate::config::Config;
use crate::pool::SlotId;
use crate::world::{Event, Failure, Machines, UnitObservation};

use bus::ManagerProxy;

/// How long a whole look may take: one call per loaded unit.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the polkit rule that `runner-controller units` prints belongs.
const POLKIT_RULE: &str = "/etc/polkit-1/rules.d/50-runner-controller.rules";

/// Whether systemd can be heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Subscribed; every change arrives as a sight.
    Connected,
    /// Not connected; being tried again. Containers are not affected.
    Disconnected {
        /// Why, for the person who reads `status`.
        why: String,
    },
}

/// Why systemd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// There is no connection to the system bus right now.
    #[error("cannot {verb} {unit}: not connected to systemd: {why}")]
    Disconnected {
        /// What was asked.
        verb: &'static str,
        /// Of which unit.
        unit: String,
        /// Why there is no connection.
        why: String,
    },
    /// polkit refused.
    #[error(
        "cannot {verb} {unit}: polkit allows only root to do this; install {POLKIT_RULE} as printed by `runner-controller units`"
    )]
    Denied {
        /// What was asked.
        verb: &'static str,
        /// Of which unit.
        unit: String,
        /// What the bus said.
        #[source]
        source: zbus::Error,
    },
    /// systemd has no such unit, or one it cannot use.
    #[error(
        "cannot {verb} {unit}: systemd has no usable unit of this name; install what `runner-controller units` prints, then `systemctl daemon-reload`"
    )]
    NoUnit {
        /// What was asked.
        verb: &'static str,
        /// Of which unit.
        unit: String,
        /// What systemd said.
        #[source]
        source: zbus::Error,
    },
    /// No answer in time. What was asked may have been done.
    #[error("cannot {verb} {unit}: systemd did not answer within {} s", bus::CALL_TIMEOUT.as_secs())]
    TimedOut {
        /// What was asked.
        verb: &'static str,
        /// Of which unit.
        unit: String,
    },
    /// Anything else.
    #[error("cannot {verb} {unit}")]
    Call {
        /// What was asked.
        verb: &'static str,
        /// Of which unit.
        unit: String,
        /// What the bus said.
        #[source]
        source: zbus::Error,
    },
    /// The first connection failed.
    #[error("cannot connect to systemd over the system bus")]
    Connect(#[source] zbus::Error),
}

impl Failure for MachineError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::Call { .. }
            | Self::Connect(_) => true,
            // Only a hand on the host brings a rule or a unit.
            Self::Denied { .. } | Self::NoUnit { .. } => false,
        }
    }
}

impl MachineError {
    fn of(verb: &'static str, unit: &str, source: zbus::Error) -> Self {
        let unit = unit.to_owned();
        match error_name(&source).as_str() {
            "org.freedesktop.DBus.Error.AccessDenied"
            | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => {
                Self::Denied { verb, unit, source }
            }
            "org.freedesktop.systemd1.NoSuchUnit"
            | "org.freedesktop.systemd1.LoadFailed"
            | "org.freedesktop.systemd1.BadUnitSetting"
            | "org.freedesktop.systemd1.UnitMasked" => Self::NoUnit { verb, unit, source },
            _ if is_timeout(&source) => Self::TimedOut { verb, unit },
            _ => Self::Call { verb, unit, source },
        }
    }
}

/// The D-Bus name of an error, empty for one that is not an answer.
fn error_name(error: &zbus::Error) -> String {
    if let zbus::Error::MethodError(name, _, _) = error {
        name.to_string()
    } else if let zbus::Error::FDO(error) = error {
        zbus::DBusError::name(error.as_ref()).to_string()
    } else {
        String::new()
    }
}

fn is_timeout(error: &zbus::Error) -> bool {
    if let zbus::Error::FDO(error) = error {
        return matches!(
            **error,
            fdo::Error::NoReply(_) | fdo::Error::Timeout(_) | fdo::Error::TimedOut(_)
        );
    }
    matches!(error, zbus::Error::InputOutput(error) if error.kind() == std::io::ErrorKind::TimedOut)
}

/// systemd's manager of this host. Dropping it ends the watching; units run on.
#[derive(Debug)]
pub struct Systemd {
    config: Arc<Config>,
    connection: channel::Receiver<Option<Connection>>,
    health: channel::Receiver<Health>,
    task: JoinHandle<()>,
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Systemd {
    /// Connects to the system bus, subscribes, and watches until dropped.
    ///
    /// From here on every change of a unit of ours is sent to `sights`; what was before is for
    /// [`Machines::look`]. A full channel delays sights and loses none: what changes meanwhile is
    /// folded into one sight per slot.
    ///
    /// # Errors
    ///
    /// [`MachineError::Connect`] if the bus or systemd cannot be reached now. Later losses are
    /// repaired in the background and shown by [`Systemd::health`].
    pub async fn connect(
        config: Arc<Config>,
        observations: mpsc::Sender<Event>,
    ) -> Result<Self, MachineError> {
        let session = watch::Session::open()
            .await
            .map_err(MachineError::Connect)?;
        let (link, connection, health) = watch::Link::new(session.connection());
        let task = tokio::spawn(watch::run(session, Arc::clone(&config), observations, link));
        Ok(Self {
            config,
            connection,
            health,
            task,
        })
    }

    /// Whether systemd can be heard, as it changes.
    #[must_use]
    pub fn health(&self) -> channel::Receiver<Health> {
        self.health.clone()
    }

    async fn manager(
        &self,
        verb: &'static str,
        unit: &str,
    ) -> Result<ManagerProxy<'static>, MachineError> {
        let connection = self.connection.borrow().clone();
        let Some(connection) = connection else {
            let why = match &*self.health.borrow() {
                Health::Disconnected { why } => why.clone(),
                // It has just come back.
                Health::Connected => "being connected".to_owned(),
            };
            return Err(MachineError::Disconnected {
                verb,
                unit: unit.to_owned(),
                why,
            });
        };
        bus::manager(&connection)
            .await
            .map_err(|source| MachineError::of(verb, unit, source))
    }
}

impl Machines for Systemd {
    type Error = MachineError;

    async fn start(&self, slot: &SlotId) -> Result<(), MachineError> {
        let (verb, unit) = ("start", slot.unit());
        let manager = self.manager(verb, &unit).await?;
        // A failed unit is started as it is. Resetting it first would send one more "inactive",
        // which looks like the end of the life that is about to begin; and what the reset is for,
        // the start limit, is off in our template.
        match manager.start_unit(&unit, "replace").await {
            Ok(_) => Ok(()),
            Err(source) => Err(MachineError::of(verb, &unit, source)),
        }
    }

    async fn stop(&self, slot: &SlotId) -> Result<(), MachineError> {
        let (verb, unit) = ("stop", slot.unit());
        let manager = self.manager(verb, &unit).await?;
        let stopped = manager.stop_unit(&unit, "replace").await;
        gone_is_done(verb, &unit, stopped.map(|_| ()))
    }

    async fn kill(&self, slot: &SlotId) -> Result<(), MachineError> {
        let (verb, unit) = ("kill", slot.unit());
        let manager = self.manager(verb, &unit).await?;
        // nspawn itself, and by `KillMode=mixed` everything else right after it. Not "all": that
        // also kills the ExecStopPost= that records how the life ended (seen on 257). Not the
        // container's init, although nspawn would then clean up itself: that needs machined's
        // `manage-machines`, which may also copy files into any machine.
        let mut killed = manager.kill_unit(&unit, "main", SIGKILL).await;
        if killed.as_ref().is_err_and(nothing_there) {
            // The launcher is not there yet, but a command before it may be.
            killed = manager.kill_unit(&unit, "control", SIGKILL).await;
        }
        gone_is_done(verb, &unit, killed)
    }

    async fn observe(&self) -> Result<Vec<UnitObservation>, MachineError> {
        let (verb, unit) = ("list", "units");
        let manager = self.manager(verb, unit).await?;
        let reconciling = watch::observe(&self.config, &manager, watch::EVERY_UNIT);
        match tokio::time::timeout(LOOK_TIMEOUT, reconciling).await {
            Ok(Ok(mut observations)) => {
                let loaded: BTreeSet<SlotId> = observations
                    .iter()
                    .map(|observation| observation.slot.clone())
                    .collect();
                let vacant = self.config.slots().filter(|slot| !loaded.contains(slot));
                observations.extend(vacant.map(|slot| watch::absent(&self.config, slot)));
                Ok(observations)
            }
            Ok(Err(source)) => Err(MachineError::of(verb, unit, source)),
            Err(_) => Err(MachineError::TimedOut {
                verb,
                unit: unit.to_owned(),
            }),
        }
    }
}

const SIGKILL: i32 = nix::sys::signal::Signal::SIGKILL as i32;

/// What must not be there and is not there, is done.
fn gone_is_done(
    verb: &'static str,
    unit: &str,
    result: zbus::Result<()>,
) -> Result<(), MachineError> {
    match result {
        Err(error) if nothing_there(&error) => Ok(()),
        other => other.map_err(|source| MachineError::of(verb, unit, source)),
    }
}

fn nothing_there(error: &zbus::Error) -> bool {
    matches!(
        error_name(error).as_str(),
        "org.freedesktop.systemd1.NoSuchUnit" | "org.freedesktop.systemd1.NoSuchProcess"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_polkit_names_the_rule_to_install() {
        let source = zbus::Error::FDO(Box::new(fdo::Error::InteractiveAuthorizationRequired(
            "Interactive authentication required.".into(),
        )));
        let error = MachineError::of("start", "runner-ci@3.service", source);
        assert!(matches!(error, MachineError::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains(POLKIT_RULE), "{error}");
        assert!(!error.is_transient());
    }

    #[test]
    fn no_answer_is_worth_another_try() {
        let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "timed out");
        let error = MachineError::of("stop", "runner-ci@3.service", late.into());
        assert!(matches!(error, MachineError::TimedOut { .. }), "{error:?}");
        assert!(error.is_transient());
    }
}
