//! Scale sets: their sessions, and the messages in their queues.
//!
//! A message stays until it is deleted, and each new session gets it again. A session lasts for a while after its last
//! call, and no other one opens meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use serde_json::{Value, json};

use super::{GitHub, Schedule, Timer};
use crate::api::{ApiAnswer, Endpoint};
use crate::event::{JobStep, SimEvent, ToldStep};
use crate::random::{Random, Stream};

/// Time for which a session that was not closed excludes others, in milliseconds.
const LEASE_MS: u64 = 92_000;
/// Id of the first message of a sequence.
const FIRST_MESSAGE: u64 = 100_000_001;
/// Maximum number of items in a message.
const MAX_ITEMS: usize = 50;
/// Deliveries after which a client gives up a message that it cannot read.
const GIVEN_UP_AFTER: u64 = 3;
/// Time in which a client may delete a message again, because it got no answer, in milliseconds.
const DELETED_AGAIN_MS: u64 = 180_000;
/// Sets of other hosts and of former pools. Their names begin as those of this host do.
const FOREIGN: [(&str, &str); 2] = [("sim-old", "old"), ("sim-a-ci", "ci")];

/// All scale sets of a scope.
pub(super) struct ScaleSets {
    pub(super) random: Random,
    pub(super) by_id: BTreeMap<u64, ScaleSet>,
    pub(super) last_set: u64,
    pub(super) last_token: u64,
    /// Times at which the tokens of the service end.
    pub(super) accesses: BTreeMap<String, u64>,
    pub(super) access_life_ms: u64,
    token_life_ms: u64,
    hold_ms: Range<u64>,
    /// Number of times that the next message is delivered unreadable.
    pub(super) next_unreadable: u64,
}

/// A scale set.
pub(super) struct ScaleSet {
    pub(super) name: String,
    pub(super) label: String,
    pub(super) session: Option<Session>,
    /// Items that are not in a message so far.
    items: Vec<Item>,
    messages: VecDeque<Message>,
    next_message: u64,
    /// Time of the last deletion of a message.
    deleted_at: u64,
}

/// A session of a set.
pub(super) struct Session {
    pub(super) id: String,
    pub(super) token: String,
    pub(super) token_until: u64,
    /// Number of jobs that the set can have, as the last poll told. Before the first poll it is none.
    capacity: u32,
    /// Time until which it excludes others. A poll that waits keeps it.
    alive_until: u64,
    poll: Option<Poll>,
}

/// A poll that waits.
#[derive(Debug, Clone, Copy)]
struct Poll {
    call: u64,
    after: u64,
}

/// A change of one job.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) step: ToldStep,
    pub(super) text: Value,
}

/// A message.
#[derive(Debug, Clone)]
struct Message {
    id: u64,
    items: Vec<Item>,
    assigned: u64,
    /// Number of deliveries in which it cannot be read.
    unreadable: u64,
    /// Number of deliveries in a row in which it could not be read.
    delivered_unreadable: u64,
    /// It was delivered.
    is_known: bool,
}

impl ScaleSets {
    /// Returns the sets of a seed, which are those of others.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, Stream::ScaleSets);
        let minutes = |random: &mut Random, of: &[u64]| random.pick(of).map_or(1, |m| m * 60_000);
        let token_life_ms = minutes(&mut random, &[2, 10, 55]);
        let access_life_ms = minutes(&mut random, &[3, 17]);
        let hold_ms = if random.chance(500) {
            51_000..52_000
        } else {
            86_000..89_000
        };
        let foreign = FOREIGN
            .iter()
            .map(|(name, label)| ScaleSet::new(name, label));
        Self {
            random,
            by_id: (1..).zip(foreign).collect(),
            last_set: FOREIGN.len() as u64,
            last_token: 0,
            accesses: BTreeMap::new(),
            access_life_ms,
            token_life_ms,
            hold_ms,
            next_unreadable: 0,
        }
    }

    /// Returns a new secret.
    pub(super) fn secret(&mut self, kind: &str) -> String {
        self.last_token += 1;
        format!("{kind}-{}", self.last_token)
    }

    /// Returns the set with the session that has this token.
    pub(super) fn of_token(&self, token: &str) -> Option<u64> {
        let of = |set: &ScaleSet| set.session.as_ref().is_some_and(|s| s.token == token);
        self.by_id
            .iter()
            .find(|(_, set)| of(set))
            .map(|(id, _)| *id)
    }

    /// Gives a session a new token.
    pub(super) fn renew(&mut self, set: u64, now: u64) {
        let token = self.secret("queue");
        let token_until = now + self.token_life_ms;
        if let Some(session) = self.session(set) {
            (session.token, session.token_until) = (token, token_until);
        }
    }

    /// Opens a session.
    pub(super) fn open(&mut self, set: u64, now: u64) {
        let id = self.secret("session");
        if let Some(set) = self.by_id.get_mut(&set) {
            set.session = Some(Session {
                id,
                token: String::new(),
                token_until: 0,
                capacity: 0,
                alive_until: now + LEASE_MS,
                poll: None,
            });
        }
        self.renew(set, now);
    }

    pub(super) fn session(&mut self, set: u64) -> Option<&mut Session> {
        self.by_id.get_mut(&set)?.session.as_mut()
    }

    /// Returns the set with most room for another job with this label, if one has room.
    pub(super) fn with_room(
        &self,
        label: &str,
        now: u64,
        load: impl Fn(u64) -> u64,
    ) -> Option<u64> {
        let room = |id: u64, set: &ScaleSet| set.capacity(now).saturating_sub(load(id));
        let sets = self.by_id.iter().filter(|(_, set)| set.label == label);
        let sets = sets.map(|(id, set)| (room(*id, set), *id));
        sets.filter(|(room, _)| *room > 0).max().map(|(_, id)| id)
    }

    /// Every live session of this host loses its token.
    pub(super) fn expire_tokens(&mut self) {
        for set in self.by_id.values_mut() {
            if let Some(session) = &mut set.session {
                session.token_until = 0;
            }
        }
        self.accesses.clear();
    }

    /// Returns one of the sets with a session.
    pub(super) fn with_session(&self, draw: u64) -> Option<u64> {
        let sets = self.by_id.iter().filter(|(_, set)| set.session.is_some());
        let sets: Vec<u64> = sets.map(|(id, _)| *id).collect();
        let chosen = usize::try_from(draw % (sets.len() as u64).max(1)).unwrap_or(0);
        sets.get(chosen).copied()
    }

    /// Starts the sequence of messages anew. Messages that were not deleted stay, with new ids. A message that was
    /// delivered keeps its id, and so does one that was just deleted, so that no deletion means another one. Then
    /// nothing changes.
    pub(super) fn restart_ids(&mut self, set: u64, now: u64) {
        let Some(set) = self.by_id.get_mut(&set) else {
            return;
        };
        let is_recent = now < set.deleted_at + DELETED_AGAIN_MS;
        if is_recent || set.messages.iter().any(|message| message.is_known) {
            return;
        }
        set.next_message = FIRST_MESSAGE;
        for message in &mut set.messages {
            message.id = set.next_message;
            set.next_message += 1;
        }
    }
}

impl ScaleSet {
    pub(super) fn new(name: &str, label: &str) -> Self {
        Self {
            name: name.to_owned(),
            label: label.to_owned(),
            session: None,
            items: Vec::new(),
            messages: VecDeque::new(),
            next_message: FIRST_MESSAGE,
            deleted_at: 0,
        }
    }

    /// Returns true if a session excludes others.
    pub(super) fn is_occupied(&self, now: u64) -> bool {
        let lasts = |session: &Session| session.poll.is_some() || now < session.alive_until;
        self.session.as_ref().is_some_and(lasts)
    }

    fn capacity(&self, now: u64) -> u64 {
        let session = self.session.as_ref().filter(|_| self.is_occupied(now));
        session.map_or(0, |session| session.capacity.into())
    }

    /// Returns the first message after `cursor`. A cursor beyond the newest message is of an earlier sequence.
    fn message_after(&mut self, cursor: u64) -> Option<&mut Message> {
        let cursor = if cursor < self.next_message {
            cursor
        } else {
            0
        };
        self.messages.iter_mut().find(|message| message.id > cursor)
    }

    /// Removes a message. Returns its content, empty if it could not be read; `None` if the queue does not have it.
    pub(super) fn delete(&mut self, id: u64, now: u64) -> Option<Vec<ToldStep>> {
        self.deleted_at = now;
        let place = self.messages.iter().position(|message| message.id == id)?;
        let message = self.messages.remove(place)?;
        let is_given_up = message.delivered_unreadable >= GIVEN_UP_AFTER;
        let items = message.items.into_iter().filter(|_| !is_given_up);
        Some(items.map(|item| item.step).collect())
    }
}

impl Message {
    fn answer(&mut self) -> ApiAnswer {
        self.is_known = true;
        let is_unreadable = self.unreadable > 0;
        self.unreadable = self.unreadable.saturating_sub(1);
        self.delivered_unreadable = if is_unreadable {
            self.delivered_unreadable + 1
        } else {
            0
        };
        let items: Vec<&Value> = self.items.iter().map(|item| &item.text).collect();
        let body = if is_unreadable {
            "{".to_owned()
        } else {
            json!(items).to_string()
        };
        let message = json!({
            "messageId": self.id,
            "messageType": "RunnerScaleSetJobMessages",
            "body": body,
            "statistics": { "totalAssignedJobs": self.assigned },
        });
        ApiAnswer::new(200, message.to_string())
    }
}

impl GitHub {
    /// Puts a change of a job into the queue of a set.
    pub(super) fn tell_set(&mut self, set: u64, item: Item, schedule: &mut Schedule<'_>) {
        let Some(told) = self.sets.by_id.get_mut(&set) else {
            return;
        };
        told.items.push(item);
        let wait = self.sets.random.wait(20, 1_000, 5_000);
        schedule.after(wait, Timer::CutMessage(set));
    }

    /// Makes a message of the items of a set.
    pub(super) fn cut_message(&mut self, id: u64, schedule: &mut Schedule<'_>) {
        let load = self.load(id);
        let sets = &mut self.sets;
        let Some(set) = sets.by_id.get_mut(&id) else {
            return;
        };
        let count = set.items.len().min(MAX_ITEMS);
        let items: Vec<Item> = set.items.drain(..count).collect();
        if items.is_empty() {
            return;
        }
        let begins = items.iter().all(|item| item.step.step == JobStep::Assigned);
        // The statistics of a message that tells of a job may lack it.
        let assigned = if begins && sets.random.chance(30) {
            0
        } else {
            load
        };
        let mut unreadable = std::mem::take(&mut sets.next_unreadable);
        if unreadable >= GIVEN_UP_AFTER {
            // An end that is never told would be a job that never ends.
            unreadable = if begins { u64::MAX } else { GIVEN_UP_AFTER - 1 };
        }
        let copies = 1 + u64::from(sets.random.chance(20));
        for _ in 0..copies {
            set.messages.push_back(Message {
                id: set.next_message,
                items: items.clone(),
                assigned,
                unreadable,
                delivered_unreadable: 0,
                is_known: false,
            });
            set.next_message += 1;
        }
        self.answer_poll(id, schedule);
    }

    /// A poll arrives. It is answered once there is a message.
    pub(super) fn poll(
        &mut self,
        set: u64,
        (call, after): (u64, u64),
        capacity: u32,
        schedule: &mut Schedule<'_>,
    ) {
        let hold = self
            .sets
            .random
            .between(self.sets.hold_ms.start, self.sets.hold_ms.end);
        let Some(session) = self.sets.session(set) else {
            return;
        };
        session.capacity = capacity;
        session.alive_until = schedule.now() + LEASE_MS;
        if let Some(earlier) = session.poll.replace(Poll { call, after }) {
            answer(earlier.call, ApiAnswer::new(202, String::new()), schedule);
        }
        schedule.after(hold, Timer::EndHold(set, call));
        self.answer_poll(set, schedule);
        self.assign_jobs(schedule);
    }

    fn answer_poll(&mut self, id: u64, schedule: &mut Schedule<'_>) {
        let now = schedule.now();
        let Some(set) = self.sets.by_id.get_mut(&id) else {
            return;
        };
        let Some(Poll { call, after }) = set.session.as_ref().and_then(|session| session.poll)
        else {
            return;
        };
        let Some(message) = set.message_after(after) else {
            return;
        };
        let message = message.answer();
        self.end_poll(id, now);
        answer(call, message, schedule);
    }

    fn end_poll(&mut self, set: u64, now: u64) {
        if let Some(session) = self.sets.session(set) {
            session.poll = None;
            session.alive_until = now + LEASE_MS;
        }
    }

    /// GitHub has held a poll for long enough.
    pub(super) fn end_hold(&mut self, set: u64, call: u64, schedule: &mut Schedule<'_>) {
        let session = self.sets.session(set);
        let poll = session.and_then(|session| session.poll);
        if poll.is_some_and(|poll| poll.call == call) {
            self.end_poll(set, schedule.now());
            answer(call, ApiAnswer::new(202, String::new()), schedule);
        }
    }

    /// The connection of a poll is gone.
    pub(crate) fn poll_dropped(&mut self, call: u64, now: u64) {
        let is_it = |set: &ScaleSet| {
            let poll = set.session.as_ref().and_then(|session| session.poll);
            poll.is_some_and(|poll| poll.call == call)
        };
        let set = self.sets.by_id.iter().find(|(_, set)| is_it(set));
        if let Some(id) = set.map(|(id, _)| *id) {
            self.end_poll(id, now);
        }
    }

    /// Ends the session of a set. A poll that waits is refused.
    pub(super) fn end_session(
        &mut self,
        set: u64,
        refusal: ApiAnswer,
        schedule: &mut Schedule<'_>,
    ) {
        let set = self.sets.by_id.get_mut(&set);
        let session = set.and_then(|set| set.session.take());
        if let Some(poll) = session.and_then(|session| session.poll) {
            answer(poll.call, refusal, schedule);
        }
    }

    /// Returns the name of the set with the session that has this token.
    #[must_use]
    pub(crate) fn set_of(&self, token: &str) -> Option<String> {
        let set = self.sets.of_token(token)?;
        Some(self.sets.by_id.get(&set)?.name.clone())
    }

    /// GitHub forgets a session.
    pub(crate) fn evict_session(&mut self, draw: u64, schedule: &mut Schedule<'_>) {
        if let Some(set) = self.sets.with_session(draw) {
            let refusal = ApiAnswer::exception(401, "UnauthorizedRequestException");
            self.end_session(set, refusal, schedule);
        }
    }

    /// GitHub loses a set, with its queue. Its jobs wait again, and its runners listen for ever.
    pub(crate) fn lose_set(&mut self, draw: u64, schedule: &mut Schedule<'_>) {
        let Some(set) = self.sets.with_session(draw) else {
            return;
        };
        let refusal = ApiAnswer::exception(404, "RunnerScaleSetNotFoundException");
        self.end_session(set, refusal, schedule);
        self.sets.by_id.remove(&set);
        self.release_jobs_of(set, schedule);
    }

    /// GitHub counts the messages of a set from the beginning.
    pub(crate) fn restart_message_ids(&mut self, draw: u64, now: u64) {
        if let Some(set) = self.sets.with_session(draw) {
            self.sets.restart_ids(set, now);
        }
    }

    /// All tokens of the service end.
    pub(crate) fn expire_service_tokens(&mut self) {
        self.sets.expire_tokens();
    }

    /// The next message cannot be read in so many deliveries.
    pub(crate) fn garble_message(&mut self, deliveries: u64) {
        self.sets.next_unreadable = deliveries;
    }
}

/// Answers a poll that waited.
fn answer(call: u64, answer: ApiAnswer, schedule: &mut Schedule<'_>) {
    schedule.emit(SimEvent::Answered {
        call,
        endpoint: Endpoint::SetPoll,
        answer,
    });
}
