//! One scope, as a host uses it: what the host left there, and the pace at which it registers runners.
//!
//! A configured scope has pools, whose runners register in it. A former one is of an earlier configuration:
//! nothing registers there, and what was left there is removed.

use super::early::EarlyLists;
use super::orphans::{Orphans, RECENT};
use super::pace::Pace;
use super::time::Timestamp;

/// Number of registrations without a runner at which a scope's mints slow down, if this daemon made them
/// within ten minutes.
pub const MAX_ORPHANS: usize = 24;

/// Maximum number of mints in a minute meanwhile.
pub const SLOW_MINTS_PER_MINUTE: usize = 6;

/// One scope, as this host uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScopeState {
    pub(super) orphans: Orphans,
    /// `None` for a former scope.
    pub(super) minting: Option<Minting>,
}

/// Mints of a configured scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Minting {
    pub(super) pace: Pace,
    pub(super) early_lists: EarlyLists,
}

impl ScopeState {
    /// Returns the state of a configured scope, whose runners register at `pace`.
    pub(super) fn configured(pace: Pace) -> Self {
        Self {
            orphans: Orphans::default(),
            minting: Some(Minting {
                pace,
                early_lists: EarlyLists::default(),
            }),
        }
    }

    /// Returns the orphaned registrations.
    #[must_use]
    pub fn orphans(&self) -> &Orphans {
        &self.orphans
    }

    /// Returns the pace of the mints; `None` for a former scope.
    #[must_use]
    pub fn pace(&self) -> Option<&Pace> {
        self.minting.as_ref().map(|minting| &minting.pace)
    }

    /// Returns true if mints are slow, because too many of the last ones left a registration without a
    /// runner.
    #[must_use]
    pub fn is_slowed_down(&self, now: Timestamp) -> bool {
        self.orphans.recent(now).len() >= MAX_ORPHANS
    }

    /// Returns the number of mints that may begin now.
    ///
    /// This is the last bound beneath all backoffs. Whatever goes wrong, GitHub is flooded neither by
    /// calls nor by registrations without a runner. Mints never stop: a stop would let failing deletions
    /// keep jobs waiting.
    pub(super) fn mint_quota(&self, now: Timestamp) -> usize {
        let pace = self.pace();
        pace.map_or(0, |pace| pace.quota(self.mint_bound(pace, now), now))
    }

    /// Returns the maximum number of mints in the minute that ends now.
    fn mint_bound(&self, pace: &Pace, now: Timestamp) -> usize {
        let (bound, _) = pace.bound(now);
        if self.is_slowed_down(now) {
            bound.min(SLOW_MINTS_PER_MINUTE)
        } else {
            bound
        }
    }

    /// Returns the time at which a mint may begin, if none may begin now.
    pub(super) fn next_mint(&self, now: Timestamp) -> Option<Timestamp> {
        let pace = self.pace()?;
        let bound = self.mint_bound(pace, now);
        if pace.quota(bound, now) > 0 {
            return None;
        }
        let free = pace.next_mint(bound, now);
        let orphans = self.orphans.recent(now);
        let fewer = orphans.len().checked_sub(MAX_ORPHANS);
        let fewer = fewer.and_then(|excess| orphans.get(excess));
        let fewer = fewer.map(|since| *since + RECENT);
        free.into_iter().chain(fewer).min()
    }

    /// Returns the time of the next deletion, unless one is under way.
    pub(super) fn next_deletion(&self) -> Option<Timestamp> {
        let orphans = Some(&self.orphans).filter(|orphans| !orphans.is_deleting())?;
        orphans.next_deadline()
    }
}
