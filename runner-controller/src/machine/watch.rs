//! The task that turns systemd's signals into events.
//!
//! Two halves run side by side and share [`Pending`]. The reader takes every message off the connection
//! at once, because zbus stops reading for every caller when a queue is full. The sender turns changes
//! into events, and asks systemd only when a signal did not have the state.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use zbus::MessageStream;

use super::bus::ManagerProxy;
use super::error::error_name;
use super::observe::{self, EVERY_UNIT};
use super::pending::{Changes, Pending, SlotState};
use super::session::{FIRST_RETRY, LAST_RETRY, Publisher, Session};
use super::signal::Signal;
use crate::config::Config;
use crate::pool::SlotId;
use crate::world::{Event, UnitObservation, UnitState};

/// Watches over `session`, and over new sessions when it is lost, until the receiver of events is gone.
pub(super) async fn run(
    session: Session,
    config: Arc<Config>,
    events: mpsc::Sender<Event>,
    publisher: Publisher,
) {
    let mut session = session;
    // The controller itself observes every unit after the first session has begun.
    let mut pending = Pending::default();
    loop {
        let sender = Sender {
            config: &config,
            manager: &session.manager,
            events: &events,
            sent: HashMap::new(),
        };
        let reason = tokio::select! {
            reason = read(&mut session.stream, &pending) => reason,
            gone = sender.run(&pending) => match gone { Err(ReceiverGone) => return, Ok(never) => match never {} },
        };
        tracing::warn!(reason, "lost systemd: {reason}; reconnecting");
        session = publisher.reopen(reason).await;
        tracing::info!("connected to systemd again");
        pending = Pending::everything();
    }
}

/// Takes messages off the connection until it ends, and returns the reason of its end.
async fn read(stream: &mut MessageStream, pending: &Pending) -> String {
    loop {
        match stream.next().await {
            None => return "the system bus closed the connection".to_owned(),
            Some(Err(error)) => return error.to_string(),
            Some(Ok(message)) => {
                if let Some(signal) = Signal::read(&message) {
                    pending.add(signal);
                }
            }
        }
    }
}

/// End of the daemon: the receiver of events is gone.
#[derive(Debug)]
struct ReceiverGone;

struct Sender<'a> {
    config: &'a Config,
    manager: &'a ManagerProxy<'static>,
    events: &'a mpsc::Sender<Event>,
    /// State that was sent last for each slot. systemd repeats itself two or three times per change.
    sent: HashMap<SlotId, SlotState>,
}

/// Returns true if a slot's state differs from the one that was sent before.
///
/// Every call that names a unit which is down loads and unloads it, the start of a runner included. So
/// "down, never started" after "down" is not a change.
fn is_change(before: Option<&SlotState>, now: &SlotState) -> bool {
    let was_down = before.is_none_or(|before| before.state == UnitState::Inactive);
    let is_unused = now.state == UnitState::Inactive && now.invocation.is_none();
    !(was_down && is_unused) && before != Some(now)
}

impl Sender<'_> {
    async fn run(mut self, pending: &Pending) -> Result<Infallible, ReceiverGone> {
        loop {
            let changes = pending.take().await;
            let mut pause = FIRST_RETRY;
            // systemd does not answer while it re-executes itself. The changes stay until it does.
            while let Err(error) = self.send_changes(&changes).await? {
                tracing::debug!(%error, "cannot query systemd: {error}; retrying");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_RETRY);
            }
        }
    }

    async fn send_changes(&mut self, changes: &Changes) -> Result<zbus::Result<()>, ReceiverGone> {
        if changes.resubscribe
            && let Err(error) = self.manager.subscribe().await
            && error_name(&error) != "org.freedesktop.systemd1.AlreadySubscribed"
        {
            return Ok(Err(error));
        }
        if changes.all {
            return self.send_everything(changes.repeat).await;
        }
        for (slot, change) in &changes.slots {
            let observation = match &change.signalled {
                Some(last) => observe::with_records(
                    self.config,
                    slot.clone(),
                    last.state,
                    last.invocation.clone(),
                ),
                // The unit's last state was sent before the signal that it was unloaded.
                None if !change.repeat && self.has_ended(slot) => continue,
                None => match observe::loaded(self.config, self.manager, &slot.unit()).await {
                    Ok(mut found) => found
                        .pop()
                        .unwrap_or_else(|| observe::absent(self.config, slot.clone())),
                    Err(error) => return Ok(Err(error)),
                },
            };
            self.send(observation, change.repeat).await?;
        }
        Ok(Ok(()))
    }

    async fn send_everything(&mut self, repeat: bool) -> Result<zbus::Result<()>, ReceiverGone> {
        let found = match observe::loaded(self.config, self.manager, EVERY_UNIT).await {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let mut unseen: BTreeSet<SlotId> = self.config.slots().collect();
        unseen.extend(self.sent.keys().cloned());
        for observation in &found {
            unseen.remove(&observation.slot);
        }
        let absent = unseen
            .into_iter()
            .map(|slot| observe::absent(self.config, slot));
        for observation in found.into_iter().chain(absent) {
            self.send(observation, repeat).await?;
        }
        Ok(Ok(()))
    }

    fn has_ended(&self, slot: &SlotId) -> bool {
        self.sent
            .get(slot)
            .is_some_and(|sent| sent.state == UnitState::Inactive)
    }

    /// Sends an observation if it is a change, or in any case with `repeat`.
    async fn send(
        &mut self,
        observation: UnitObservation,
        repeat: bool,
    ) -> Result<(), ReceiverGone> {
        let now = SlotState {
            state: observation.state,
            invocation: observation.invocation.clone(),
        };
        let before = self.sent.insert(observation.slot.clone(), now.clone());
        if !repeat && !is_change(before.as_ref(), &now) {
            return Ok(());
        }
        let (slot, state) = (&observation.slot, observation.state);
        let ended = observation.end.is_some();
        tracing::debug!(%slot, ?state, ended, "{slot}: the unit changed: {state:?}");
        self.events
            .send(Event::Unit(observation))
            .await
            .map_err(|_| ReceiverGone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Invocation;

    #[test]
    fn a_unit_that_is_down_and_loaded_again_has_not_changed() {
        let state = |state, id: Option<char>| SlotState {
            state,
            invocation: id.and_then(|c| Invocation::parse(&c.to_string().repeat(32))),
        };
        let down = |id| state(UnitState::Inactive, id);
        assert!(!is_change(None, &down(None)));
        assert!(!is_change(Some(&down(Some('a'))), &down(None)));
        assert!(is_change(
            Some(&state(UnitState::Failed, None)),
            &down(None)
        ));
        assert!(is_change(Some(&down(Some('a'))), &down(Some('b'))));
        assert!(is_change(None, &down(Some('a'))));
    }
}
