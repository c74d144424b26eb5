//! The session of a scale set: the next call, from the answers to the calls before.
//!
//! A scale set has one queue of messages, which one session reads. GitHub ends sessions and sets, refuses tokens,
//! repeats messages, and starts their ids anew. Each of these heals by the next steps, and runners are left alone.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

use crate::Timestamp;

/// Pause after the first failure, which doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Maximum pause of our own choice.
const MAX_PAUSE: Duration = Duration::from_mins(1);
/// Pause after a refusal that an operator has to mend.
const REFUSED_PAUSE: Duration = Duration::from_mins(5);
/// Interval between attempts while an earlier session has the set. A session that was not closed was seen to be
/// replaceable after 91 to 92 s.
const OCCUPIED_PAUSE: Duration = Duration::from_secs(5);
/// Time after which an earlier session has the set for too long to be one that was not closed.
const OCCUPIED_TOO_LONG: Duration = Duration::from_mins(3);
/// Pause before a message that could not be read is fetched again.
const REPEAT_PAUSE: Duration = Duration::from_secs(5);
/// Number of deliveries after which a message that cannot be read is given up.
const MAX_DELIVERIES: u32 = 3;
/// Number of answers in a row that a set does not exist, after which it is found or created anew.
const LOST_ANSWERS: u32 = 2;
/// Time after which a session that ends was not short. Others are followed by a pause, which doubles.
const SHORT_LIFE: Duration = Duration::from_mins(1);
/// Number of failures in a row after which a session is given up. The next one may do better.
const MAX_FAILURES: u32 = 5;
/// Time before the end of a token at which it is replaced.
const TOKEN_RESERVE: Duration = Duration::from_mins(10);
/// Minimum interval between two tokens of a session, whatever the clocks say.
const TOKEN_INTERVAL: Duration = Duration::from_mins(5);

/// The next call for a scale set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetStep {
    /// Find the set by its name, or create it.
    Find,
    /// Open a session of the set with this id.
    Open(u64),
    /// Replace the token of the session, which also tells the statistics.
    Refresh,
    /// Delete the message with this id, which is on record.
    Acknowledge(u64),
    /// Wait for the first message after this id.
    Poll(u64),
}

/// Kind of a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTrouble {
    /// Another session has the set.
    Occupied,
    /// The token of the session is not valid any more.
    TokenRefused,
    /// The session does not exist any more.
    SessionLost,
    /// The set does not exist any more.
    SetLost,
    /// A failure that may pass, after this pause if GitHub asked for one.
    Passing(Option<Duration>),
    /// A refusal that an operator has to mend.
    Refused,
}

/// Answer to a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// No message came.
    Nothing,
    /// A message came, and everything that it told is on record.
    Recorded(u64),
    /// A message came that cannot be read.
    Unreadable(u64),
    /// A message came, and could not be put on record.
    NotRecorded,
}

/// State of the session, as it is shown.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetState {
    /// No session was opened so far.
    #[default]
    Connecting,
    /// An earlier session has the set, as after a daemon that was killed. GitHub ends it after some 90 s.
    Occupied,
    /// Messages arrive.
    Listening,
    /// The last call failed.
    Failing,
}

/// The session of one scale set.
#[derive(Debug, Clone, Default)]
pub struct SetSession {
    set: Option<u64>,
    is_open: bool,
    must_refresh: bool,
    refresh_at: Option<Timestamp>,
    /// Id of the last message. Ids of another session, or of a sequence that GitHub started anew, may be lower.
    cursor: u64,
    /// Messages that are on record and not deleted.
    recorded: VecDeque<u64>,
    unreadable: Option<(u64, u32)>,
    resume_at: Option<Timestamp>,
    failures: u32,
    /// Tokens in a row that were refused.
    refused_tokens: u32,
    lost_answers: u32,
    opened_at: Timestamp,
    /// Short sessions in a row.
    short_lives: u32,
    occupied_since: Option<Timestamp>,
}

impl SetSession {
    /// Returns the next call, or the time until which none is due.
    ///
    /// # Errors
    /// Nothing is due before the time.
    pub fn next(&self, now: Timestamp) -> Result<SetStep, Timestamp> {
        if let Some(at) = self.resume_at.filter(|at| now < *at) {
            return Err(at);
        }
        let Some(set) = self.set else {
            return Ok(SetStep::Find);
        };
        Ok(if !self.is_open {
            SetStep::Open(set)
        } else if self.must_refresh || self.refresh_at.is_some_and(|at| now >= at) {
            SetStep::Refresh
        } else if let Some(message) = self.recorded.front() {
            SetStep::Acknowledge(*message)
        } else {
            SetStep::Poll(self.cursor)
        })
    }

    /// Returns the state for the status.
    #[must_use]
    pub fn state(&self) -> SetState {
        if self.occupied_since.is_some() {
            SetState::Occupied
        } else if self.failures > 0 || self.lost_answers > 0 {
            SetState::Failing
        } else if self.is_open {
            SetState::Listening
        } else {
            SetState::Connecting
        }
    }

    /// Returns true if an earlier session has had the set for longer than one that was not closed has it.
    #[must_use]
    pub fn is_occupied_too_long(&self, now: Timestamp) -> bool {
        self.occupied_since
            .is_some_and(|since| now.since(since) >= OCCUPIED_TOO_LONG)
    }

    /// Returns true while there is a session.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Returns the messages that are on record and not deleted.
    pub fn recorded(&self) -> impl Iterator<Item = u64> {
        self.recorded.iter().copied()
    }

    /// Applies that the set has this id.
    pub fn found(&mut self, set: u64) {
        self.succeeded();
        self.lost_answers = 0;
        self.set = Some(set);
    }

    /// Applies that a session is open, whose token has this time to live.
    ///
    /// The queue belongs to the set, and the cursor to the session: what was not deleted comes again.
    pub fn opened(&mut self, token_life: Option<Duration>, now: Timestamp) {
        self.succeeded();
        self.is_open = true;
        self.opened_at = now;
        self.lost_answers = 0;
        self.cursor = 0;
        self.recorded.clear();
        self.unreadable = None;
        self.set_token(token_life, now);
    }

    /// Applies that the session has a new token.
    pub fn refreshed(&mut self, token_life: Option<Duration>, now: Timestamp) {
        self.set_token(token_life, now);
    }

    /// Applies the answer to a poll. Returns true if a message was given up that cannot be read.
    pub fn polled(&mut self, polled: Polled, now: Timestamp) -> bool {
        match polled {
            Polled::Nothing => self.succeeded(),
            Polled::Recorded(id) => {
                self.succeeded();
                self.unreadable = None;
                self.cursor = id;
                self.recorded.push_back(id);
            }
            Polled::Unreadable(id) => {
                self.succeeded();
                let before = self.unreadable.filter(|(known, _)| *known == id);
                let deliveries = before.map_or(0, |(_, count)| count) + 1;
                if deliveries >= MAX_DELIVERIES {
                    self.unreadable = None;
                    self.cursor = id;
                    self.recorded.push_back(id);
                    return true;
                }
                self.unreadable = Some((id, deliveries));
                self.resume_at = Some(now + REPEAT_PAUSE);
            }
            Polled::NotRecorded => self.pause(None, now),
        }
        false
    }

    /// Applies that a message is deleted, or was before.
    pub fn acknowledged(&mut self, message: u64) {
        self.succeeded();
        self.recorded.retain(|recorded| *recorded != message);
    }

    /// Applies that a call failed.
    pub fn failed(&mut self, trouble: SetTrouble, now: Timestamp) {
        match trouble {
            SetTrouble::Occupied => {
                self.lose_session();
                self.occupied_since.get_or_insert(now);
                self.resume_at = Some(now + OCCUPIED_PAUSE);
                return;
            }
            SetTrouble::TokenRefused => {
                self.refused_tokens += 1;
                // A new token was refused at once, so the session is not what its answers say.
                if self.refused_tokens > 1 {
                    self.session_ended(now);
                } else {
                    self.must_refresh = true;
                }
            }
            SetTrouble::SessionLost if self.is_open => self.session_ended(now),
            SetTrouble::SessionLost => self.pause(None, now),
            SetTrouble::SetLost => {
                self.lost_answers += 1;
                self.lose_session();
                if self.lost_answers >= LOST_ANSWERS {
                    self.set = None;
                }
                self.pause(None, now);
            }
            SetTrouble::Passing(retry_after) => self.pause(retry_after, now),
            SetTrouble::Refused => self.pause(Some(REFUSED_PAUSE), now),
        }
        self.occupied_since = None;
        if self.failures >= MAX_FAILURES {
            self.lose_session();
        }
    }

    fn set_token(&mut self, token_life: Option<Duration>, now: Timestamp) {
        self.must_refresh = false;
        self.refresh_at =
            token_life.map(|life| now + life.saturating_sub(TOKEN_RESERVE).max(TOKEN_INTERVAL));
    }

    /// Gives up a session that GitHub ended. The next one is opened at once, unless sessions keep ending.
    fn session_ended(&mut self, now: Timestamp) {
        self.lose_session();
        if now.since(self.opened_at) >= SHORT_LIFE {
            self.short_lives = 0;
            return;
        }
        if self.short_lives > 0 {
            let doubled = FIRST_PAUSE.saturating_mul(1 << self.short_lives.min(8));
            self.resume_at = Some(now + doubled.min(MAX_PAUSE));
        }
        self.short_lives += 1;
    }

    fn lose_session(&mut self) {
        self.is_open = false;
        self.must_refresh = false;
        self.refresh_at = None;
        self.refused_tokens = 0;
    }

    fn succeeded(&mut self) {
        self.resume_at = None;
        self.failures = 0;
        self.occupied_since = None;
        self.refused_tokens = 0;
    }

    fn pause(&mut self, retry_after: Option<Duration>, now: Timestamp) {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(8));
        self.failures += 1;
        let pause = doubled.min(MAX_PAUSE).max(retry_after.unwrap_or_default());
        self.resume_at = Some(now + pause);
    }
}

/// Returns true if GitHub has to know at once that the pool can have `now` jobs altogether, and not `told`.
///
/// A lower number keeps jobs away that could not start. A higher one gets jobs only if the set has as many as it may.
#[must_use]
pub fn must_announce(told: u32, now: u32, assigned: Option<u64>) -> bool {
    now < told || now > told && assigned.is_none_or(|assigned| assigned >= told.into())
}

#[cfg(test)]
mod tests;
