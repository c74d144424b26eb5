//! One scale set: its claims, its session and its queue.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::scope::Scope;

/// Id of the first message of a sequence, as at GitHub.
const FIRST_MESSAGE: u64 = 100_000_001;
/// Maximum number of items in a message.
pub(crate) const MAX_ITEMS: usize = 50;

/// A scale set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ScaleSet {
    pub(crate) id: u64,
    pub(crate) scope: Scope,
    pub(crate) name: String,
    pub(crate) group_id: u64,
    pub(crate) labels: Vec<String>,
    pub(crate) disable_update: bool,
    pub(crate) created_at: u64,
    pub(crate) deleted: bool,
    pub(crate) session: Option<SetSession>,
    /// Claimed jobs by id.
    pub(crate) claims: BTreeMap<u64, Claim>,
    /// Request ids of jobs that the set may acquire, by job.
    pub(crate) offers: BTreeMap<u64, u64>,
    /// Items that are in no message yet, oldest first.
    pub(crate) items: Vec<Value>,
    /// Messages that were not deleted. The log belongs to the set and outlives sessions.
    pub(crate) messages: BTreeMap<u64, QueueMessage>,
    pub(crate) next_message: u64,
}

/// A job that belongs to a set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) stage: ClaimStage,
    pub(crate) request_id: u64,
    pub(crate) assigned_at: u64,
    pub(crate) reassigned: u32,
}

/// State of a claimed job, as the set's messages have told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClaimStage {
    /// `JobAssigned` was the last item.
    Assigned,
    /// `JobStarted` was the last item.
    Started,
    /// `JobCompleted` was sent by a fault, although the job runs.
    EndedEarly,
    /// The job ended without an item, by a fault. The statistics count it for ever.
    Lost,
}

/// The session of a set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SetSession {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) token: String,
    /// End of the token's life, unix milliseconds.
    pub(crate) token_expires: u64,
    /// Capacity of the last poll. Before the first poll nothing is assigned.
    pub(crate) capacity: u64,
    /// Polls in flight, which end with the program.
    #[serde(skip)]
    pub(crate) polls: u32,
    pub(crate) last_contact: u64,
}

/// A message that a session may delete.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct QueueMessage {
    /// JSON array of items.
    pub(crate) body: String,
    pub(crate) statistics: Value,
}

impl SetSession {
    /// Tells whether the session still excludes others.
    pub(crate) fn is_alive(&self, now: u64, lapse_ms: u64) -> bool {
        self.polls > 0 || now < self.last_contact + lapse_ms
    }
}

impl ScaleSet {
    pub(crate) fn new(id: u64, scope: Scope, name: String, now: u64) -> Self {
        Self {
            id,
            scope,
            name,
            group_id: 1,
            labels: vec![],
            disable_update: false,
            created_at: now,
            deleted: false,
            session: None,
            claims: BTreeMap::new(),
            offers: BTreeMap::new(),
            items: vec![],
            messages: BTreeMap::new(),
            next_message: FIRST_MESSAGE,
        }
    }

    /// Returns the number of jobs that the set may hold, which its session advertised last.
    pub(crate) fn capacity(&self, now: u64, lapse_ms: u64) -> u64 {
        self.session
            .as_ref()
            .filter(|session| session.is_alive(now, lapse_ms))
            .map_or(0, |session| session.capacity)
    }

    /// Returns the number of jobs that the set holds.
    pub(crate) fn load(&self) -> u64 {
        let held = |claim: &&Claim| claim.stage != ClaimStage::EndedEarly;
        self.claims.values().filter(held).count() as u64
    }

    /// Tells whether the set has all `wanted` labels.
    pub(crate) fn has_labels(&self, wanted: &[String]) -> bool {
        wanted
            .iter()
            .all(|want| self.labels.iter().any(|has| has.eq_ignore_ascii_case(want)))
    }

    /// Returns the first message after `cursor`. Items become a message unless another follows the cursor.
    ///
    /// A cursor beyond the newest message is of an earlier sequence, and counts as 0.
    pub(crate) fn message_after(
        &mut self,
        cursor: u64,
        statistics: impl FnOnce() -> Value,
    ) -> Option<(u64, &QueueMessage)> {
        let cursor = if cursor < self.next_message {
            cursor
        } else {
            0
        };
        if self.messages.range(cursor + 1..).next().is_none() && !self.items.is_empty() {
            let count = self.items.len().min(MAX_ITEMS);
            let items: Vec<Value> = self.items.drain(..count).collect();
            let message = QueueMessage {
                body: Value::from(items).to_string(),
                statistics: statistics(),
            };
            self.messages.insert(self.next_message, message);
            self.next_message += 1;
        }
        let (id, message) = self.messages.range(cursor + 1..).next()?;
        Some((*id, message))
    }

    /// Starts the sequence of messages anew. Messages that were not deleted stay, with new ids.
    pub(crate) fn restart_sequence(&mut self) {
        let kept = std::mem::take(&mut self.messages);
        self.messages = (FIRST_MESSAGE..).zip(kept.into_values()).collect();
        self.next_message = FIRST_MESSAGE + self.messages.len() as u64;
    }

    /// Ends the set, as a deletion or a loss at GitHub does. Its jobs go back to GitHub's queue.
    pub(crate) fn end(&mut self) {
        self.deleted = true;
        self.session = None;
        self.claims.clear();
        self.offers.clear();
        self.items.clear();
        self.messages.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set() -> ScaleSet {
        ScaleSet::new(1, Scope::Organization("acme".into()), "a".into(), 0)
    }

    #[test]
    fn a_message_stays_until_it_is_deleted() {
        let mut set = set();
        set.items = (0..60).map(|n| json!(n)).collect();
        let (first, message) = set.message_after(0, || json!({})).unwrap();
        assert_eq!(first, 100_000_001);
        let items: Vec<u64> = serde_json::from_str(&message.body).unwrap();
        assert_eq!(items.len(), MAX_ITEMS);
        let (second, _) = set.message_after(first, || json!({})).unwrap();
        assert_eq!(second, first + 1);
        assert_eq!(set.message_after(0, || json!({})).unwrap().0, first);
        set.messages.remove(&first);
        assert_eq!(set.message_after(0, || json!({})).unwrap().0, second);
        assert!(set.message_after(second, || json!({})).is_none());
    }

    #[test]
    fn a_restarted_sequence_keeps_undeleted_messages() {
        let mut set = set();
        for n in 0..3 {
            set.items.push(json!(n));
            set.message_after(100_000_000 + n, || json!({})).unwrap();
        }
        set.messages.remove(&100_000_001);
        set.restart_sequence();
        // A client that still has the last cursor gets them.
        let (id, message) = set.message_after(100_000_003, || json!({})).unwrap();
        assert_eq!((id, message.body.as_str()), (100_000_001, "[1]"));
    }
}
