//! The one task that listens to systemd.
//!
//! Two halves run side by side and share [`Dirty`]: the reader takes every message off the
//! connection at once (zbus stops reading for everybody when a queue is full), the worker turns
//! what changed into sights, and asks systemd only when a signal did not tell.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{Notify, mpsc, watch as channel};
use zbus::{Connection, MessageStream};

use super::Health;
use super::bus::{self, ManagerProxy, Signal, Told};
use crate::config::Config;
use crate::pool::SlotId;
use crate::slot_records;
use crate::world::{Event, Invocation, UnitObservation, UnitState};

/// Matches the units of every pool, of pools that are configured no longer, and little else.
pub(super) const EVERY_UNIT: &str = "runner-*@*.service";

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// A connection that is subscribed.
pub(super) struct Session {
    manager: ManagerProxy<'static>,
    stream: MessageStream,
}

impl Session {
    /// Connects and subscribes. Signals from here on are queued.
    pub(super) async fn open() -> zbus::Result<Self> {
        let connection = bus::connect().await?;
        let stream = MessageStream::from(&connection);
        bus::add_matches(&connection).await?;
        let manager = bus::manager(&connection).await?;
        // Without it systemd sends no signals at all.
        manager.subscribe().await?;
        Ok(Self { manager, stream })
    }

    pub(super) fn connection(&self) -> Connection {
        self.manager.inner().connection().clone()
    }
}

/// What the rest of the daemon sees of the connection.
pub(super) struct Link {
    connection: channel::Sender<Option<Connection>>,
    health: channel::Sender<Health>,
}

impl Link {
    pub(super) fn new(
        connection: Connection,
    ) -> (
        Self,
        channel::Receiver<Option<Connection>>,
        channel::Receiver<Health>,
    ) {
        let (connection, connection_seen) = channel::channel(Some(connection));
        let (health, health_seen) = channel::channel(Health::Connected);
        (Self { connection, health }, connection_seen, health_seen)
    }

    fn up(&self, session: &Session) {
        self.connection.send_replace(Some(session.connection()));
        self.health.send_replace(Health::Connected);
    }

    fn down(&self, why: String) {
        self.connection.send_replace(None);
        self.health.send_replace(Health::Disconnected { why });
    }
}

/// Watches over `session`, and over new ones when it is lost, until the receiver of sights is gone.
pub(super) async fn run(
    session: Session,
    config: Arc<Config>,
    observations: mpsc::Sender<Event>,
    link: Link,
) {
    let mut session = session;
    // What was before the first session is the controller's own first look.
    let mut look_first = false;
    loop {
        let dirty = Dirty::default();
        if look_first {
            dirty.mark_all();
        }
        let worker = Worker {
            config: &config,
            manager: &session.manager,
            observations: &observations,
            last: HashMap::new(),
        };
        let why = tokio::select! {
            why = read(&mut session.stream, &dirty) => why,
            gone = worker.run(&dirty) => match gone { Err(ReceiverGone) => return, Ok(never) => match never {} },
        };
        tracing::warn!(error = %why, "lost systemd; trying again");
        link.down(why);
        session = reopen(&link).await;
        link.up(&session);
        tracing::info!("connected to systemd again");
        look_first = true;
    }
}

async fn reopen(link: &Link) -> Session {
    let mut wait = FIRST_RETRY;
    loop {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_RETRY);
        match Session::open().await {
            Ok(session) => return session,
            Err(error) => {
                let why = error.to_string();
                tracing::debug!(error = %why, retry_ms = wait.as_millis(), "still no systemd");
                link.down(why);
            }
        }
    }
}

/// Takes messages off the connection until it ends, and says why it did.
async fn read(stream: &mut MessageStream, dirty: &Dirty) -> String {
    loop {
        match stream.next().await {
            None => return "the system bus closed the connection".to_owned(),
            Some(Err(error)) => return error.to_string(),
            Some(Ok(message)) => {
                if let Some(signal) = Signal::read(&message) {
                    dirty.fold(signal);
                }
            }
        }
    }
}

/// What a signal said about a slot that has not been passed on yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Mark {
    /// The newest state that a signal told; `None` means that systemd has to be asked.
    seen: Option<(UnitState, Option<Invocation>)>,
    /// Pass it on even if it is what was passed on last.
    anew: bool,
}

/// What changed since the worker last looked. Bounded by the number of slots.
#[derive(Debug, Default)]
struct Dirty {
    changes: Mutex<Changes>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Changes {
    slots: BTreeMap<SlotId, Mark>,
    /// Everything must be looked at, and what differs from what was told is told.
    all: bool,
    /// And the rest as well: what happened meanwhile may have ended as it began.
    anew: bool,
    /// systemd forgot that we listen.
    resubscribe: bool,
}

impl Dirty {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        // Nothing that holds the lock can panic half-way.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark_all(&self) {
        let mut changes = self.changes();
        changes.all = true;
        changes.anew = true;
        drop(changes);
        self.wake.notify_one();
    }

    fn fold(&self, signal: Signal) {
        self.changes().fold(signal);
        self.wake.notify_one();
    }

    async fn take(&self) -> Changes {
        self.wake.notified().await;
        std::mem::take(&mut *self.changes())
    }
}

impl Changes {
    fn fold(&mut self, signal: Signal) {
        match signal {
            Signal::Unit {
                slot,
                state,
                invocation,
            } => self.slots.entry(slot).or_default().seen = Some((state, invocation)),
            // A life that ended is unloaded right after, and its last state says more than
            // "unloaded". In every other state this is a reload, which loads the unit again: only
            // systemd can tell what it is.
            Signal::Unloaded(slot) => {
                let mark = self.slots.entry(slot).or_default();
                if !matches!(mark.seen, Some((UnitState::Inactive, _))) {
                    mark.seen = None;
                }
            }
            Signal::JobFailed { slot, result } => {
                tracing::warn!(%slot, result, "a systemd job did not end well");
                let mark = self.slots.entry(slot).or_default();
                // The unit may not have changed at all, and somebody waits for it to start.
                *mark = Mark {
                    seen: None,
                    anew: true,
                };
            }
            Signal::Reloaded => self.all = true,
            Signal::Appeared => {
                self.all = true;
                self.anew = true;
                self.resubscribe = true;
            }
        }
    }
}

/// Nobody listens any more.
#[derive(Debug)]
struct ReceiverGone;

struct Worker<'a> {
    config: &'a Config,
    manager: &'a ManagerProxy<'static>,
    observations: &'a mpsc::Sender<Event>,
    /// What was told last: systemd repeats itself two or three times per change.
    last: HashMap<SlotId, (UnitState, Option<Invocation>)>,
}

/// True if `now` is something to tell about a slot after `before`.
///
/// A unit that was down is loaded and forgotten by every call that names it, a start that is about
/// to happen included: "down, never started" after "down" is nothing to tell.
fn is_news(
    before: Option<&(UnitState, Option<Invocation>)>,
    now: &(UnitState, Option<Invocation>),
) -> bool {
    match (before, now) {
        (None | Some((UnitState::Inactive, _)), (UnitState::Inactive, None)) => false,
        (before, now) => before != Some(now),
    }
}

impl Worker<'_> {
    async fn run(mut self, dirty: &Dirty) -> Result<Infallible, ReceiverGone> {
        loop {
            let changes = dirty.take().await;
            let mut wait = FIRST_RETRY;
            // systemd does not answer while it re-executes itself. The question stays open.
            while let Err(error) = self.pass_on(&changes).await? {
                tracing::debug!(%error, "asking systemd again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LAST_RETRY);
            }
        }
    }

    async fn pass_on(&mut self, changes: &Changes) -> Result<zbus::Result<()>, ReceiverGone> {
        if changes.resubscribe
            && let Err(error) = self.manager.subscribe().await
            && super::error_name(&error) != "org.freedesktop.systemd1.AlreadySubscribed"
        {
            return Ok(Err(error));
        }
        if changes.all {
            return self.pass_on_everything(changes.anew).await;
        }
        for (slot, mark) in &changes.slots {
            let observation = match &mark.seen {
                Some((state, invocation)) => {
                    records(self.config, slot.clone(), *state, invocation.clone())
                }
                // Its last state was passed on before the news that it was unloaded.
                None if !mark.anew
                    && matches!(self.last.get(slot), Some((UnitState::Inactive, _))) =>
                {
                    continue;
                }
                None => match observe(self.config, self.manager, &slot.unit()).await {
                    Ok(mut found) => found
                        .pop()
                        .unwrap_or_else(|| absent(self.config, slot.clone())),
                    Err(error) => return Ok(Err(error)),
                },
            };
            let now = (observation.state, observation.invocation.clone());
            let before = self.last.insert(slot.clone(), now.clone());
            if mark.anew || is_news(before.as_ref(), &now) {
                self.send(observation).await?;
            }
        }
        Ok(Ok(()))
    }

    async fn pass_on_everything(&mut self, anew: bool) -> Result<zbus::Result<()>, ReceiverGone> {
        let found = match observe(self.config, self.manager, EVERY_UNIT).await {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let mut unseen: BTreeSet<SlotId> = self.config.slots().collect();
        unseen.extend(self.last.keys().cloned());
        for observation in &found {
            unseen.remove(&observation.slot);
        }
        let gone = unseen.into_iter().map(|slot| absent(self.config, slot));
        for observation in found.into_iter().chain(gone) {
            let now = (observation.state, observation.invocation.clone());
            let before = self.last.insert(observation.slot.clone(), now.clone());
            if anew || is_news(before.as_ref(), &now) {
                self.send(observation).await?;
            }
        }
        Ok(Ok(()))
    }

    async fn send(&self, observation: UnitObservation) -> Result<(), ReceiverGone> {
        tracing::debug!(slot = %observation.slot, state = ?observation.state, ended = observation.end.is_some(), "unit changed");
        self.observations
            .send(Event::Unit(observation))
            .await
            .map_err(|_| ReceiverGone)
    }
}

/// Asks systemd for the loaded units of ours that match `pattern`.
///
/// Listing by pattern loads nothing. `GetUnit` or reading a property of an unloaded unit does, and
/// its unloading a moment later would be the next signal to look into.
pub(super) async fn observe(
    config: &Config,
    manager: &ManagerProxy<'static>,
    pattern: &str,
) -> zbus::Result<Vec<UnitObservation>> {
    let mut observations = Vec::new();
    for unit in manager.list_units_by_patterns(&[], &[pattern]).await? {
        let Some(slot) = SlotId::from_unit(&unit.name) else {
            continue;
        };
        let starting = unit.job_type == "start";
        observations.push(match bus::state_of(&unit.active_state, starting) {
            None => continue,
            Some(Told::Between) => UnitObservation {
                slot,
                state: UnitState::Activating,
                invocation: None,
                start: None,
                end: None,
            },
            Some(Told::State(UnitState::Inactive)) => absent(config, slot),
            Some(Told::State(
                state @ (UnitState::Activating
                | UnitState::Active
                | UnitState::Deactivating
                | UnitState::Failed),
            )) => {
                let connection = manager.inner().connection();
                let invocation = bus::invocation(connection, &unit.path).await?;
                records(config, slot, state, invocation)
            }
        });
    }
    Ok(observations)
}

/// A slot that systemd has no unit for.
pub(super) fn absent(config: &Config, slot: SlotId) -> UnitObservation {
    records(config, slot, UnitState::Inactive, None)
}

/// Completes a sight with what root wrote about this life: two small files on tmpfs, read in
/// place because that is quicker than handing them to another thread.
fn records(
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

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> SlotId {
        "ci-3".parse().unwrap()
    }

    fn unit(state: UnitState) -> Signal {
        Signal::Unit {
            slot: slot(),
            state,
            invocation: Invocation::parse(&"a".repeat(32)),
        }
    }

    fn folded(signals: Vec<Signal>) -> Mark {
        let mut changes = Changes::default();
        for signal in signals {
            changes.fold(signal);
        }
        changes.slots.remove(&slot()).unwrap()
    }

    #[test]
    fn the_newest_state_wins() {
        let mark = folded(vec![unit(UnitState::Activating), unit(UnitState::Active)]);
        assert_eq!(mark.seen.unwrap().0, UnitState::Active);
    }

    #[test]
    fn an_end_is_kept_over_the_unloading_that_follows_it() {
        let mark = folded(vec![unit(UnitState::Inactive), Signal::Unloaded(slot())]);
        assert_eq!(mark.seen.unwrap().0, UnitState::Inactive);
    }

    #[test]
    fn a_reload_is_not_believed_to_end_a_running_unit() {
        let mark = folded(vec![unit(UnitState::Active), Signal::Unloaded(slot())]);
        assert_eq!(mark.seen, None);
        assert!(!mark.anew);
    }

    #[test]
    fn a_failed_start_job_is_told_even_if_the_unit_never_changed() {
        let mark = folded(vec![Signal::JobFailed {
            slot: slot(),
            result: "dependency".into(),
        }]);
        assert_eq!(
            mark,
            Mark {
                seen: None,
                anew: true
            }
        );
    }

    #[test]
    fn a_unit_that_is_down_and_loaded_anew_is_no_news() {
        let down = |id: Option<char>| {
            let id = id.and_then(|c| Invocation::parse(&c.to_string().repeat(32)));
            (UnitState::Inactive, id)
        };
        assert!(!is_news(None, &down(None)));
        assert!(!is_news(Some(&down(Some('a'))), &down(None)));
        assert!(is_news(Some(&(UnitState::Failed, None)), &down(None)));
        assert!(is_news(Some(&down(Some('a'))), &down(Some('b'))));
        assert!(is_news(None, &down(Some('a'))));
    }

    #[test]
    fn a_new_systemd_is_subscribed_to_and_looked_at() {
        let mut changes = Changes::default();
        changes.fold(Signal::Appeared);
        assert!(changes.all && changes.anew && changes.resubscribe);
    }
}
