//! [`Machines`] over systemd's D-Bus interface: start, stop, kill, observe, and events of changes.
//!
//! Nothing polls. One task keeps a connection to the system bus, reduces systemd's signals to "this
//! slot changed", and sends an [`Event`] with the slot's state and the records that root wrote
//! ([`crate::slot_records`]). When the bus is lost, the task reconnects with a backoff and then
//! observes every unit, because it has missed changes.
//!
//! - `bus`: the connection and the calls
//! - `signal`: systemd's signals and states
//! - `session`: connection and reconnection
//! - `pending`: changes that were signalled and not sent yet
//! - `observe`: units as systemd has them now
//! - `watch`: the task

mod bus;
mod error;
mod observe;
mod pending;
mod session;
mod signal;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::pool::SlotId;
use crate::slot_records;
use crate::world::{Event, Machines, RecordedEnd, UnitObservation};

use bus::ManagerProxy;
use error::is_gone;
use session::{Connections, Session};

pub(crate) use error::MachineError;

/// Timeout for observing every unit, which takes one call for each loaded unit.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(30);

const SIGKILL: i32 = nix::sys::signal::Signal::SIGKILL as i32;

/// systemd's manager of this host. Dropping it ends the task; units run on.
#[derive(Debug)]
pub(crate) struct Systemd {
    config: Arc<Config>,
    connections: Connections,
    task: JoinHandle<()>,
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Systemd {
    /// Connects to the system bus, subscribes to systemd, and watches until dropped.
    ///
    /// From now on, every change of a slot's unit is sent to `events`. [`Machines::observe`] returns
    /// the state before. A full channel delays events and loses none: later changes of a slot are
    /// merged into one event.
    ///
    /// # Errors
    ///
    /// [`MachineError::Connect`] if the bus or systemd cannot be reached now. A later loss is repaired
    /// in the background.
    pub(crate) async fn connect(
        config: Arc<Config>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, MachineError> {
        let session = Session::open().await.map_err(MachineError::Connect)?;
        let (publisher, connections) = session::publish(&session);
        let task = tokio::spawn(watch::run(session, Arc::clone(&config), events, publisher));
        Ok(Self {
            config,
            connections,
            task,
        })
    }

    async fn manager(
        &self,
        verb: &'static str,
        unit: &str,
    ) -> Result<ManagerProxy<'static>, MachineError> {
        let connection =
            self.connections
                .current()
                .map_err(|reason| MachineError::Disconnected {
                    verb,
                    unit: unit.to_owned(),
                    reason,
                })?;
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
        // A failed unit is started without a reset. The reset would signal "inactive" once more,
        // which looks like the end of the runner that is about to start. Its other purpose, the start
        // limit, is off in our template.
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
        // "main" is nspawn, after which `KillMode=mixed` kills everything else. "all" would also kill
        // the ExecStopPost= that records how the runner ended (seen on 257). Killing the container's
        // init, after which nspawn cleans up, needs machined's `manage-machines`, which also lets
        // copy files into any machine.
        let mut killed = manager.kill_unit(&unit, "main", SIGKILL).await;
        if killed.as_ref().is_err_and(is_gone) {
            // Before the launcher runs, an operator's ExecStartPre= may run. A stop ends it. "control"
            // would kill it too, but after the container's end that is the ExecStopPost=.
            killed = manager.stop_unit(&unit, "replace").await.map(drop);
        }
        gone_is_done(verb, &unit, killed)
    }

    async fn observe(&self) -> Result<Vec<UnitObservation>, MachineError> {
        let (verb, unit) = ("list", "units");
        let manager = self.manager(verb, unit).await?;
        let observing = observe::loaded(&self.config, &manager, observe::EVERY_UNIT);
        match tokio::time::timeout(OBSERVE_TIMEOUT, observing).await {
            Ok(Ok(mut observations)) => {
                let loaded: BTreeSet<SlotId> = observations
                    .iter()
                    .map(|observation| observation.slot.clone())
                    .collect();
                let vacant = self.config.slots().filter(|slot| !loaded.contains(slot));
                observations.extend(vacant.map(|slot| observe::absent(&self.config, slot)));
                Ok(observations)
            }
            Ok(Err(source)) => Err(MachineError::of(verb, unit, source)),
            Err(_) => Err(MachineError::TimedOut {
                verb,
                unit: unit.to_owned(),
            }),
        }
    }

    async fn ends(&self) -> Vec<RecordedEnd> {
        let dir = self.config.records_dir();
        // Many slots have thousands of records, too many to read between two events.
        let reading = tokio::task::spawn_blocking(move || slot_records::every_end(&dir));
        reading.await.unwrap_or_default()
    }
}

/// Treats a unit or process that does not exist as done.
fn gone_is_done(
    verb: &'static str,
    unit: &str,
    result: zbus::Result<()>,
) -> Result<(), MachineError> {
    match result {
        Err(error) if is_gone(&error) => Ok(()),
        other => other.map_err(|source| MachineError::of(verb, unit, source)),
    }
}
