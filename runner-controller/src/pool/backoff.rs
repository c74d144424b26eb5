//! Waiting longer after each failure of a kind, and never for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::VariantArray;

use super::time::Timestamp;

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait that we choose ourselves.
const LONGEST: Duration = Duration::from_mins(5);
/// The longest wait that somebody else can make us take: GitHub's primary limit lasts an hour, and
/// a header that asks for more is not believed.
const LONGEST_ASKED: Duration = Duration::from_mins(65);

/// What keeps failing.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::AsRefStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Containers that do not become spares.
    Boot,
    /// Configs that GitHub does not give for a reason of its own, or that of the way to it.
    Mint,
    /// Configs that it does not give because of the token: 401.
    Unauthorized,
    /// Because of a permission or a policy: 403 that is no limit.
    Forbidden,
    /// Because it shows us no such repository, organisation or runner group: 404.
    NotFound,
    /// Because of what is asked for: 422.
    Invalid,
    /// Because of a rate limit.
    Limited,
    /// Runners that were registered and ended without a job.
    Expired,
    /// Runners whose version GitHub refuses.
    Version,
}

impl FailureKind {
    /// All kinds.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The ones that a mint has, and that the next good mint ends.
    pub const MINTING: [Self; 6] = [
        Self::Mint,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Invalid,
        Self::Limited,
    ];
}

/// One kind of failure in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// How many in a row.
    pub failures: u32,
    /// Nothing of that kind is tried before.
    pub until: Timestamp,
    /// The last one's reason, for the person who asks why nothing happens.
    pub reason: String,
}

/// The failures of one pool, by kind. A kind that works is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoffs(BTreeMap<FailureKind, Backoff>);

impl Backoffs {
    /// Counts a failure and sets the wait: doubling from one second to five minutes, cut by up to
    /// half by `random` so that pools and hosts do not retry in step, and at least `asked`.
    pub fn fail(
        &mut self,
        failure: FailureKind,
        reason: String,
        asked: Option<Duration>,
        now: Timestamp,
        random: u32,
    ) {
        let failures = self
            .0
            .get(&failure)
            .map_or(0, |b| b.failures)
            .saturating_add(1);
        let own = delay(failures, random);
        let wait = own.max(asked.unwrap_or_default().min(LONGEST_ASKED));
        let until = now + wait;
        self.0.insert(
            failure,
            Backoff {
                failures,
                until,
                reason,
            },
        );
    }

    /// Adds to the reason of the last failure of a kind what somebody else knows of it.
    pub fn explain(&mut self, failure: FailureKind, why: &str) {
        if let Some(backoff) = self.0.get_mut(&failure) {
            backoff.reason = format!("{}: {why}", backoff.reason);
        }
    }

    /// Forgets the failures of a kind: it worked.
    pub fn succeed(&mut self, failure: FailureKind) {
        self.0.remove(&failure);
    }

    /// Forgets everything: somebody says that it is mended.
    pub fn reset(&mut self) {
        self.0.clear();
    }

    /// True if this kind may be tried now.
    #[must_use]
    pub fn open(&self, failure: FailureKind, now: Timestamp) -> bool {
        self.0.get(&failure).is_none_or(|b| now >= b.until)
    }

    /// True if nothing keeps runners from being registered now.
    #[must_use]
    pub fn may_register(&self, now: Timestamp) -> bool {
        self.iter()
            .all(|(failure, backoff)| failure == FailureKind::Boot || now >= backoff.until)
    }

    /// Every kind that failed last time.
    pub fn iter(&self) -> impl Iterator<Item = (FailureKind, &Backoff)> {
        self.0.iter().map(|(failure, backoff)| (*failure, backoff))
    }
}

/// The wait after this many failures in a row.
pub(super) fn delay(failures: u32, random: u32) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let full = doubled.min(LONGEST);
    // From half to the whole of it.
    full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_and_ends() {
        assert_eq!(delay(1, u32::MAX), Duration::from_secs(1));
        assert_eq!(delay(4, u32::MAX), Duration::from_secs(8));
        for failures in 0..2000 {
            assert!(delay(failures, 0) <= delay(failures, u32::MAX));
            assert!(delay(failures, u32::MAX) <= LONGEST);
            assert!(delay(failures, 0) >= FIRST / 2);
        }
    }

    #[test]
    fn nobody_can_make_us_wait_for_ever() {
        let mut backoffs = Backoffs::default();
        backoffs.fail(
            FailureKind::Mint,
            "limited".into(),
            Some(Duration::MAX),
            Timestamp::default(),
            7,
        );
        assert!(!backoffs.open(FailureKind::Mint, Timestamp::default() + LONGEST));
        assert!(backoffs.open(FailureKind::Mint, Timestamp::default() + LONGEST_ASKED));
        assert!(backoffs.open(FailureKind::Boot, Timestamp::default()));
    }
}
