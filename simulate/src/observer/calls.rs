//! Calls to GitHub, and the limits that the daemon knows.

use std::collections::{BTreeMap, VecDeque};

use super::checked::{Checked, violated};
use crate::api::{AnnouncedLimits, Endpoint};
use crate::invariant::Invariant;

/// Mints in a minute: the default of `github.mints_per_minute`. GitHub takes 180 in a minute, and 10,000 in an hour.
const MAX_MINTS_PER_MINUTE: usize = 150;
/// Deletions in a minute. They are a second apart.
const MAX_DELETIONS_PER_MINUTE: usize = 62;
const MINUTE_MS: u64 = 60_000;
/// Early lists for a runner: three after its registration, and four when it retires.
const EARLY_LISTS_PER_RUNNER: u64 = 7;
/// Early lists in a minute.
const EARLY_LISTS_PER_MINUTE: u64 = 3;
/// `reconcile` of every configuration.
const RECONCILE_MS: u64 = 60_000;
/// Time for which records must have been writable, so that the daemon has written a limit behind everything else
/// that waited.
const BACKLOG_MS: u64 = 10_000;
/// Time that the daemon may take to write a limit, in milliseconds.
const WRITE_MS: u64 = 3_000;

/// Calls to GitHub.
#[derive(Default)]
pub(super) struct Calls {
    sent: u64,
    /// Mints of all scopes.
    mints: u64,
    /// Lists by scope.
    lists: BTreeMap<String, u64>,
    /// Calls of the last minute.
    recent: VecDeque<(u64, Endpoint)>,
    /// GitHub refused a call, and wants none before this time.
    refused_until: u64,
    /// Time at which the daemon heard that.
    refused_at: u64,
    /// Resources that are used up, with the time of their reset.
    empty_until: BTreeMap<&'static str, u64>,
}

impl Calls {
    /// Returns the number of calls.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "few calls are bounded")]
    /// Counts a call and checks it. `daemons` is the number of daemons so far.
    pub(super) fn check(
        &mut self,
        endpoint: Endpoint,
        scope: &str,
        daemons: u64,
        now: u64,
    ) -> Checked {
        self.sent += 1;
        self.mints += u64::from(endpoint.is_mint());
        self.recent.push_back((now, endpoint));
        while (self.recent.front()).is_some_and(|(at, _)| at + MINUTE_MS < now) {
            self.recent.pop_front();
        }
        let empty = self.empty_until.get(endpoint.resource());
        let until = self.refused_until.max(empty.copied().unwrap_or(0));
        if now < until && !endpoint.is_of_service() {
            let facts = format!("{endpoint:?}, {} ms too early", until - now);
            return violated(Invariant::SilentWhileLimited, facts);
        }
        let recent = self.recent.iter();
        let is_same = |other: Endpoint| other == endpoint || other.is_mint() && endpoint.is_mint();
        let recent = recent.filter(|(_, other)| is_same(*other)).count();
        match endpoint {
            Endpoint::Mint | Endpoint::SetMint if recent > MAX_MINTS_PER_MINUTE => {
                violated(Invariant::FewMints, recent.to_string())
            }
            Endpoint::Delete if recent > MAX_DELETIONS_PER_MINUTE => {
                violated(Invariant::FewDeletions, recent.to_string())
            }
            Endpoint::List => {
                let lists = self.lists.entry(scope.to_owned()).or_default();
                *lists += 1;
                // A daemon that starts reconciles at once.
                let reconciles = now / RECONCILE_MS + 2 * daemons + 1;
                // A new daemon may take one more for a registration that it adopts.
                let by_mints = EARLY_LISTS_PER_RUNNER * self.mints + daemons;
                let by_time = EARLY_LISTS_PER_MINUTE * (now / MINUTE_MS + daemons);
                let max = reconciles + by_mints.min(by_time);
                if *lists > max {
                    let facts = format!("{lists} of {max} in {scope}");
                    return violated(Invariant::FewLists, facts);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The daemon heard of limits.
    pub(super) fn limits_told(&mut self, limits: AnnouncedLimits, now: u64) {
        if let Some(until) = limits.refused_until
            && until > self.refused_until
        {
            (self.refused_until, self.refused_at) = (until, now);
        }
        if let Some((resource, until)) = limits.empty_until {
            let known = self.empty_until.entry(resource).or_default();
            *known = until.max(*known);
        }
    }

    /// The daemon ended. The next one knows the refusals that this one could write down.
    pub(super) fn daemon_ended(&mut self, writable_since: Option<u64>, now: u64) {
        self.empty_until.clear();
        let backlog_written = |since| now > since + BACKLOG_MS;
        let written = now > self.refused_at + WRITE_MS;
        if !(written && writable_since.is_some_and(backlog_written)) {
            self.refused_until = 0;
        }
    }

    /// The daemon starts without its records.
    pub(super) fn forget_refusals(&mut self) {
        self.refused_until = 0;
    }

    /// The host boots. No clock of it goes on through that, and a limit's end is known by such a clock.
    pub(super) fn forget_limits(&mut self) {
        self.refused_until = 0;
    }
}
