//! The pace of mints: a bound for each minute, which follows GitHub's answers and outlives the daemon.
//!
//! GitHub documents 900 points a minute for one endpoint, of which most POST requests cost 5, and so 180
//! mints ("Rate limits for the REST API", "Calculating points for the secondary rate limit"). Mints have a
//! primary window besides, `actions_runner_registration` with 10,000 calls an hour, and so 166 a minute.
//! The same page limits "content-generating requests" to 80 a minute and 500 an hour. They cannot include
//! registrations, of which a repository or organisation may have 1,500 in 5 minutes ("Limits in GitHub
//! Actions"). If GitHub counts otherwise, its refusals say so: each halves the bound, and each minute
//! without one raises it again. Near the end of a counted window, the rest of the window is spread evenly.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

use super::time::Timestamp;

const MINUTE: Duration = Duration::from_mins(1);

/// Default of `github.mints_per_minute`. Within an hour it is 9,000 of the 10,000 registrations.
pub const DEFAULT_MINTS_PER_MINUTE: usize = 150;

/// Minimum bound, whatever GitHub refuses. GitHub's own waits hold beside it. It is below the strictest
/// documented limit of a minute, 80, and a small host mints fewer: a refusal that other clients of its account
/// caused delays no job beyond GitHub's own wait.
const SLOWEST: usize = 30;

/// Part of the configured bound that each minute without a refusal gives back. A bound that GitHub does
/// not document is met again after a quarter of an hour, and not every few minutes.
const RECOVERY: usize = 30;

/// Part of a window below which the rest of it is spread until its reset.
const SPREAD: u64 = 5;

/// A counted window of GitHub's rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MintWindow {
    /// Calls in the window.
    pub limit: u64,
    /// Calls that are left.
    pub remaining: u64,
    /// Time until the window is reset.
    pub resets_in: Duration,
}

/// Reason for a bound.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PaceReason {
    /// `github.mints_per_minute`.
    Configured,
    /// GitHub refused a mint because of a rate limit.
    Refused,
    /// Little is left of a counted window.
    Window,
}

/// The pace of mints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    configured: usize,
    /// Bound that the last refusal left.
    bound: usize,
    /// Time of the last refusal.
    refused_at: Timestamp,
    /// Times of the mints in the last minute, oldest first.
    mints: VecDeque<Timestamp>,
    /// Bound that the counted window leaves, until its reset.
    window: Option<(usize, Timestamp)>,
    /// Time at which the mints of a minute last reached the bound.
    reached_at: Option<Timestamp>,
}

impl Pace {
    /// Returns the pace of a daemon that has sent nothing, with the configured bound.
    #[must_use]
    pub fn new(configured: usize) -> Self {
        Self {
            configured,
            bound: configured,
            refused_at: Timestamp::default(),
            mints: VecDeque::new(),
            window: None,
            reached_at: None,
        }
    }

    /// Returns the configured bound.
    #[must_use]
    pub fn configured(&self) -> usize {
        self.configured
    }

    /// Returns true if the bound was reached within the last minute, or is below the configured one.
    #[must_use]
    pub fn is_felt(&self, now: Timestamp) -> bool {
        let (_, reason) = self.bound(now);
        let was_reached = self.reached_at.is_some_and(|at| now.since(at) < MINUTE);
        was_reached || reason != PaceReason::Configured
    }

    /// Counts a mint that begins.
    pub fn begin(&mut self, now: Timestamp) {
        self.mints.retain(|at| now.since(*at) < MINUTE);
        self.mints.push_back(now);
        if self.mints.len() >= self.bound(now).0 {
            self.reached_at = Some(now);
        }
    }

    /// Applies a refusal of a mint because of a rate limit. Mints that were under way together are
    /// refused together, and count once.
    pub fn refused(&mut self, now: Timestamp) {
        let is_again = self.bound < self.configured && now.since(self.refused_at) < MINUTE;
        if is_again {
            return;
        }
        // Another client of the account may have used most of what GitHub allows.
        let sent = self.recent(now).count();
        let (bound, _) = self.bound(now);
        self.bound = (bound.min(sent) / 2).max(SLOWEST).min(self.configured);
        self.refused_at = now;
    }

    /// Applies a counted window as GitHub last announced it.
    pub fn window(&mut self, window: Option<MintWindow>, now: Timestamp) {
        self.window = window.and_then(|window| {
            let is_short = window.remaining < window.limit / SPREAD;
            let minutes = window.resets_in.as_secs() / 60 + 1;
            let share = usize::try_from(window.remaining / minutes).unwrap_or(usize::MAX);
            is_short.then(|| (share.max(1), now + window.resets_in))
        });
    }

    /// Returns the maximum number of mints in the minute that ends now, and the reason for it.
    #[must_use]
    pub fn bound(&self, now: Timestamp) -> (usize, PaceReason) {
        let minutes = now.since(self.refused_at).as_secs() / 60;
        let minutes = usize::try_from(minutes).unwrap_or(usize::MAX);
        let given_back = (self.configured / RECOVERY).max(1).saturating_mul(minutes);
        let learned = self.bound.saturating_add(given_back);
        let mut bound = if learned < self.configured {
            (learned, PaceReason::Refused)
        } else {
            (self.configured, PaceReason::Configured)
        };
        if let Some((share, until)) = self.window
            && now < until
            && share < bound.0
        {
            bound = (share, PaceReason::Window);
        }
        bound
    }

    /// Returns the times of the mints in the minute that ends now, oldest first.
    pub fn recent(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        let recent = self.mints.iter().copied();
        recent.filter(move |at| now.since(*at) < MINUTE)
    }

    /// Returns the number of mints that may begin now if no more than `bound` may begin in a minute.
    #[must_use]
    pub fn quota(&self, bound: usize, now: Timestamp) -> usize {
        bound.saturating_sub(self.recent(now).count())
    }

    /// Returns the first time at which a mint may begin under `bound`, if none may begin now.
    #[must_use]
    pub fn next_mint(&self, bound: usize, now: Timestamp) -> Option<Timestamp> {
        let recent: Vec<Timestamp> = self.recent(now).collect();
        let excess = recent.len().checked_sub(bound)?;
        let free = recent.get(excess).map(|at| *at + MINUTE);
        // A higher bound may come first.
        let minutes = now.since(self.refused_at).as_secs() / 60 + 1;
        let raised = self.refused_at + Duration::from_secs(60 * minutes);
        let raised = (self.bound < self.configured).then_some(raised);
        let reset = self.window.map(|(_, until)| until);
        let times = free.into_iter().chain(raised).chain(reset);
        times.filter(|at| *at > now).min()
    }

    /// Returns the record of the pace for `account`. `unix_ms` is the time in milliseconds since 1970.
    #[must_use]
    pub fn record(&self, account: &str, boot_id: &str, now: Timestamp, unix_ms: u64) -> PaceRecord {
        PaceRecord {
            boot_id: boot_id.to_owned(),
            at: now,
            at_unix_ms: unix_ms,
            bound: self.bound,
            refused_ago: now.since(self.refused_at),
            mints_ago: self.recent(now).map(|at| now.since(at)).collect(),
            account: account.to_owned(),
        }
    }

    /// Continues the pace of an earlier daemon, unless it was another account's.
    pub fn restore(
        &mut self,
        record: &PaceRecord,
        account: &str,
        boot_id: &str,
        now: Timestamp,
        unix_ms: u64,
    ) {
        if record.account != account {
            return;
        }
        let elapsed = if record.boot_id == boot_id {
            now.since(record.at)
        } else {
            // A wall clock that was set back makes the wait longer, by a minute at most.
            Duration::from_millis(unix_ms.saturating_sub(record.at_unix_ms))
        };
        let ago = |age: Duration| {
            let age = u64::try_from(age.saturating_add(elapsed).as_millis()).unwrap_or(u64::MAX);
            Timestamp::from_millis(now.millis().saturating_sub(age))
        };
        self.bound = record
            .bound
            .clamp(SLOWEST.min(self.configured), self.configured);
        self.refused_at = ago(record.refused_ago);
        let recent = record.mints_ago.iter();
        let recent = recent.filter(|age| age.saturating_add(elapsed) < MINUTE);
        self.mints = recent.map(|age| ago(*age)).collect();
    }
}

/// Record of a pace, so that the next daemon keeps to it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaceRecord {
    boot_id: String,
    at: Timestamp,
    at_unix_ms: u64,
    bound: usize,
    refused_ago: Duration,
    mints_ago: Vec<Duration>,
    account: String,
}

impl fmt::Display for PaceRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (boot_id, at, unix_ms) = (&self.boot_id, self.at.millis(), self.at_unix_ms);
        let (bound, refused) = (self.bound, self.refused_ago.as_millis());
        let ages = self.mints_ago.iter().map(|age| age.as_millis().to_string());
        let ages = ages.collect::<Vec<_>>().join(",");
        let account = &self.account;
        write!(
            f,
            "{boot_id} {at} {unix_ms} {bound} {refused} {ages} {account}"
        )
    }
}

impl FromStr for PaceRecord {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.splitn(7, ' ');
        let mut word = || words.next().ok_or(());
        let number = |text: &str| text.parse::<u64>().map_err(|_| ());
        let (boot_id, at, at_unix_ms) = (word()?, number(word()?)?, number(word()?)?);
        let (bound, refused, ages) = (number(word()?)?, number(word()?)?, word()?);
        let ages = ages.split(',').filter(|age| !age.is_empty());
        let ages = ages.map(|age| number(age).map(Duration::from_millis));
        Ok(Self {
            boot_id: boot_id.to_owned(),
            at: Timestamp::from_millis(at),
            at_unix_ms,
            bound: usize::try_from(bound).map_err(|_| ())?,
            refused_ago: Duration::from_millis(refused),
            mints_ago: ages.collect::<Result<_, ()>>()?,
            account: word()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
