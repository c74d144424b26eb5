//! The events that follow from the status. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::Serialize;

use crate::config::NotifyEvent;
use crate::pool::Timestamp;
use crate::status::{DaemonState, Status};
use crate::terminal;
use crate::view::{health, version_problem};

/// Time for which a host is not healthy before it is told. A restart and a short outage of GitHub pass.
const UNHEALTHY_FOR: Duration = Duration::from_mins(2);
/// Minimum time between two beginnings of the same event.
const PAUSE: Duration = Duration::from_mins(10);
/// Maximum number of notifications in an hour.
const MAX_PER_HOUR: usize = 30;
/// Number of failures in a row from which a pool counts as stopped.
const FAILURES: u32 = 3;
/// Maximum number of characters of a text.
const MAX_TEXT: usize = 1_000;

/// Stage of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// It began.
    Began,
    /// It is over.
    Ended,
}

/// One document for the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Notification {
    /// The event.
    pub(super) event: NotifyEvent,
    /// Its stage.
    pub(super) stage: Stage,
    /// Id of the host.
    pub(super) host: String,
    /// Scopes of the host.
    pub(super) scope: String,
    /// Name of the pool, if the event is about one.
    pub(super) pool: Option<String>,
    /// The event in words, safe for a terminal.
    pub(super) text: String,
    /// Time of the status that tells it, in milliseconds since 1970.
    pub(super) at_unix_ms: u64,
    /// Number of notifications that were left out since the last one, because there were too many.
    pub(super) left_out: u64,
}

/// An event and the pool that it is about.
type Key = (NotifyEvent, Option<String>);

/// The events that hold, and those of which the command was told.
#[derive(Debug)]
pub(super) struct Changes {
    chosen: BTreeSet<NotifyEvent>,
    /// Start of each condition that holds.
    since: BTreeMap<Key, Timestamp>,
    /// Events of whose beginning the command was told, and not of their end.
    told: BTreeSet<Key>,
    /// Time of the last beginning of each event.
    began: BTreeMap<Key, Timestamp>,
    /// Times of the last notifications.
    sent: VecDeque<Timestamp>,
    left_out: u64,
}

impl Changes {
    /// Returns a state that knows of no event.
    pub(super) fn new(chosen: BTreeSet<NotifyEvent>) -> Self {
        Self {
            chosen,
            since: BTreeMap::new(),
            told: BTreeSet::new(),
            began: BTreeMap::new(),
            sent: VecDeque::new(),
            left_out: 0,
        }
    }

    /// Returns what the command is to be told after a look at the status.
    pub(super) fn observe(&mut self, status: &Status, now: Timestamp) -> Vec<Notification> {
        // A daemon that has not taken over its runners knows nothing.
        if status.state == DaemonState::Starting {
            return Vec::new();
        }
        let mut holding = conditions(status);
        holding.retain(|(event, _), _| self.chosen.contains(event));
        self.since.retain(|key, _| holding.contains_key(key));
        let mut all = Vec::new();
        let over: Vec<Key> = self
            .told
            .iter()
            .filter(|key| !holding.contains_key(*key))
            .cloned()
            .collect();
        for key in over {
            self.told.remove(&key);
            let text = format!("{} is over", sentence(&key));
            all.extend(self.admit(key, Stage::Ended, text, status, now));
        }
        for (key, text) in holding {
            let since = *self.since.entry(key.clone()).or_insert(now);
            let patience = match key.0 {
                NotifyEvent::Unhealthy => UNHEALTHY_FOR,
                NotifyEvent::PoolStopped | NotifyEvent::VersionEnds | NotifyEvent::Drained => {
                    Duration::ZERO
                }
            };
            if self.told.contains(&key) || now.since(since) < patience {
                continue;
            }
            if self
                .began
                .get(&key)
                .is_some_and(|began| now.since(*began) < PAUSE)
            {
                continue;
            }
            self.told.insert(key.clone());
            self.began.insert(key.clone(), now);
            all.extend(self.admit(key, Stage::Began, text, status, now));
        }
        // Pools may be renamed without end.
        self.began.retain(|_, began| now.since(*began) < PAUSE);
        all
    }

    /// Returns the notification, unless an hour had too many.
    fn admit(
        &mut self,
        (event, pool): Key,
        stage: Stage,
        text: String,
        status: &Status,
        now: Timestamp,
    ) -> Option<Notification> {
        let hour = Duration::from_hours(1);
        while self
            .sent
            .front()
            .is_some_and(|sent| now.since(*sent) >= hour)
        {
            self.sent.pop_front();
        }
        if self.sent.len() >= MAX_PER_HOUR {
            self.left_out += 1;
            return None;
        }
        self.sent.push_back(now);
        let text: String = terminal::plain(&text).chars().take(MAX_TEXT).collect();
        Some(Notification {
            event,
            stage,
            host: status.host.clone(),
            scope: status.scope.clone(),
            pool,
            text,
            at_unix_ms: status.at_unix_ms,
            left_out: std::mem::take(&mut self.left_out),
        })
    }
}

fn sentence((event, pool): &Key) -> String {
    let of = pool.as_ref().map(|pool| format!(" of pool {pool}"));
    format!("{event}{}", of.unwrap_or_default())
}

/// Returns the conditions that hold, each with its text.
fn conditions(status: &Status) -> BTreeMap<Key, String> {
    let mut holding = BTreeMap::new();
    let reasons = health(status).reasons;
    if !reasons.is_empty() {
        let key = (NotifyEvent::Unhealthy, None);
        holding.insert(key, reasons.join("; "));
    }
    if status.state == DaemonState::Drained {
        let text = "the drain is done: no runner is left".to_owned();
        holding.insert((NotifyEvent::Drained, None), text);
    }
    for pool in &status.pools {
        let failing = pool.backoffs.iter();
        let worst = failing.filter(|backoff| backoff.failures >= FAILURES);
        if let Some(worst) = worst.max_by_key(|backoff| backoff.failures) {
            let text = format!(
                "pool {}: {} {} times in a row: {}",
                pool.name,
                worst.failure.clause(),
                worst.failures,
                worst.reason
            );
            holding.insert((NotifyEvent::PoolStopped, Some(pool.name.clone())), text);
        }
        if let Some(text) = version_problem(pool, status.at_unix_ms) {
            holding.insert((NotifyEvent::VersionEnds, Some(pool.name.clone())), text);
        }
    }
    holding
}

#[cfg(test)]
mod tests;
