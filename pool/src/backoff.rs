//! Backoffs: a longer delay after each failure of a kind, up to a limit.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

use super::time::Timestamp;

/// Delay after the first failure.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// Age of a registration from which a list should have it. GitHub's list is eventually consistent.
pub(super) const LIST_GRACE: Duration = Duration::from_secs(30);
/// Maximum delay of our own choice.
const MAX_DELAY: Duration = Duration::from_mins(5);
/// Maximum delay that an answer can request. GitHub's primary rate limit lasts an hour, so a header
/// that requests more is wrong.
const MAX_REQUESTED_DELAY: Duration = Duration::from_mins(65);

/// Kind of failure. A success ends the failures of the same kind only.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// A container did not become a spare.
    Boot,
    /// A mint failed at GitHub or on the way to it.
    Mint,
    /// GitHub refused a mint because of the token: 401.
    Unauthorized,
    /// GitHub refused a mint because of a permission or a policy: 403 without a rate limit.
    Forbidden,
    /// GitHub refused a mint because it shows the token no such repository, organisation or runner
    /// group: 404.
    NotFound,
    /// GitHub refused the request of a mint: 422.
    Invalid,
    /// GitHub refused a mint because of a rate limit.
    Limited,
    /// A registered runner ended without a job.
    Expired,
    /// GitHub refused the version of a runner.
    Version,
}

impl FailureKind {
    /// All kinds.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// Returns the failure as a clause, to which a number of times can be added.
    #[must_use]
    pub const fn clause(self) -> &'static str {
        match self {
            Self::Boot => "a container failed to boot",
            Self::Mint => "a registration failed",
            Self::Unauthorized => "GitHub refused the credentials",
            Self::Forbidden => "GitHub refused permission",
            Self::NotFound => "GitHub did not find the scope or the runner group",
            Self::Invalid => "GitHub refused the request",
            Self::Limited => "GitHub limited the rate",
            Self::Expired => "a registered runner ended without a job",
            Self::Version => "GitHub refused the version of a runner",
        }
    }

    /// Kinds that a mint can cause, and that the next successful mint ends.
    pub const MINTING: [Self; 6] = [
        Self::Mint,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Invalid,
        Self::Limited,
    ];
}

/// Failures of one kind in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// Number of failures.
    pub failures: u32,
    /// Earliest time of the next try.
    pub until: Timestamp,
    /// Reason of the last failure, for the operator.
    pub reason: String,
}

/// Failures of one pool, by kind. A kind whose last try succeeded is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoffs(BTreeMap<FailureKind, Backoff>);

impl Backoffs {
    /// Counts a failure and sets the delay: from one second, doubled to at most five minutes, and at
    /// least `requested`. `random` cuts it by up to half, so that pools and hosts do not retry in step.
    pub fn fail(
        &mut self,
        failure: FailureKind,
        reason: String,
        requested: Option<Duration>,
        now: Timestamp,
        random: u32,
    ) {
        let failures = self
            .0
            .get(&failure)
            .map_or(0, |b| b.failures)
            .saturating_add(1);
        let requested = requested.unwrap_or_default().min(MAX_REQUESTED_DELAY);
        let backoff = Backoff {
            failures,
            until: now + delay(failures, random).max(requested),
            reason,
        };
        self.0.insert(failure, backoff);
    }

    /// Returns true if no kind of failure is backed off from.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces the reason of the last failure of a kind by a better one.
    pub fn explain(&mut self, failure: FailureKind, explanation: String) {
        if let Some(backoff) = self.0.get_mut(&failure) {
            backoff.reason = explanation;
        }
    }

    /// Forgets the failures of a kind after a success.
    pub fn succeed(&mut self, failure: FailureKind) {
        self.0.remove(&failure);
    }

    /// Forgets all failures, because an operator says that the causes are fixed.
    pub fn reset(&mut self) {
        self.0.clear();
    }

    /// Returns true if the next try of a kind is due.
    #[must_use]
    pub fn is_due(&self, failure: FailureKind, now: Timestamp) -> bool {
        self.0.get(&failure).is_none_or(|b| now >= b.until)
    }

    /// Returns true if no failure delays registrations.
    #[must_use]
    pub fn may_register(&self, now: Timestamp) -> bool {
        self.iter()
            .all(|(failure, backoff)| failure == FailureKind::Boot || now >= backoff.until)
    }

    /// Returns every kind whose last try failed.
    pub fn iter(&self) -> impl Iterator<Item = (FailureKind, &Backoff)> {
        self.0.iter().map(|(failure, backoff)| (*failure, backoff))
    }
}

/// Returns the delay after this many failures in a row: from half to all of the doubled delay.
pub(super) fn delay(failures: u32, random: u32) -> Duration {
    let doubled = FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let full = doubled.min(MAX_DELAY);
    full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_doubles_up_to_a_limit() {
        assert_eq!(delay(1, u32::MAX), Duration::from_secs(1));
        assert_eq!(delay(4, u32::MAX), Duration::from_secs(8));
        for failures in 0..2000 {
            assert!(delay(failures, 0) <= delay(failures, u32::MAX));
            assert!(delay(failures, u32::MAX) <= MAX_DELAY);
            assert!(delay(failures, 0) >= FIRST_DELAY / 2);
        }
    }

    #[test]
    fn an_answer_cannot_request_an_endless_delay() {
        let mut backoffs = Backoffs::default();
        backoffs.fail(
            FailureKind::Mint,
            "limited".into(),
            Some(Duration::MAX),
            Timestamp::default(),
            7,
        );
        assert!(!backoffs.is_due(FailureKind::Mint, Timestamp::default() + MAX_DELAY));
        assert!(backoffs.is_due(
            FailureKind::Mint,
            Timestamp::default() + MAX_REQUESTED_DELAY
        ));
        assert!(backoffs.is_due(FailureKind::Boot, Timestamp::default()));
    }
}
