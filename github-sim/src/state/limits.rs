//! Rate limits: the primary buckets, and the secondary limits when they are switched on.

use std::collections::{BTreeMap, VecDeque};

use crate::settings::Settings;

/// A bucket of the primary limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bucket {
    Core,
    Registration,
}

/// State of a bucket at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) limit: u64,
    pub(crate) used: u64,
    /// Unix seconds.
    pub(crate) reset: u64,
}

impl Usage {
    pub(crate) fn remaining(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

#[derive(Debug, Default)]
pub(crate) struct RateLimits {
    windows: BTreeMap<(String, Bucket), RateWindow>,
    /// Time and points of the last minute's calls, by endpoint.
    points: BTreeMap<String, VecDeque<(u64, u64)>>,
    /// Times of the last five minutes' registrations, by account.
    registrations: BTreeMap<String, VecDeque<u64>>,
    /// REST calls in flight.
    pub(crate) in_flight: u64,
    /// End of the announced limit, unix milliseconds.
    pub(crate) announced_until: u64,
    /// Start of the announced limit, unix milliseconds.
    pub(crate) announced_at: u64,
}

#[derive(Clone, Copy, Debug)]
struct RateWindow {
    ends: u64,
    used: u64,
}

impl Bucket {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Registration => "actions_runner_registration",
        }
    }

    fn limit(self, settings: &Settings) -> u64 {
        match self {
            Self::Core => settings.rate_limit,
            Self::Registration => settings.mint_rate_limit,
        }
    }
}

impl RateLimits {
    /// Returns the usage of an account's bucket without counting a call.
    pub(crate) fn usage(
        &self,
        account: &str,
        bucket: Bucket,
        settings: &Settings,
        now: u64,
    ) -> Usage {
        let window = self
            .windows
            .get(&(account.to_owned(), bucket))
            .filter(|window| now < window.ends)
            .copied()
            .unwrap_or(RateWindow {
                ends: now + settings.rate_window_ms,
                used: 0,
            });
        Usage {
            limit: bucket.limit(settings),
            used: window.used,
            reset: window.ends.div_ceil(1000),
        }
    }

    /// Counts one call. Returns `None` if the bucket is empty, so the call must be refused.
    pub(crate) fn spend(
        &mut self,
        account: &str,
        bucket: Bucket,
        settings: &Settings,
        now: u64,
    ) -> Option<()> {
        if self.usage(account, bucket, settings, now).remaining() == 0 {
            return None;
        }
        let window = self
            .windows
            .entry((account.to_owned(), bucket))
            .or_insert(RateWindow { ends: 0, used: 0 });
        if now >= window.ends {
            *window = RateWindow {
                ends: now + settings.rate_window_ms,
                used: 0,
            };
        }
        window.used += 1;
        Some(())
    }

    /// Returns one call to the bucket, for an answer that costs nothing (304).
    pub(crate) fn refund(&mut self, account: &str, bucket: Bucket) {
        if let Some(window) = self.windows.get_mut(&(account.to_owned(), bucket)) {
            window.used = window.used.saturating_sub(1);
        }
    }

    /// Counts the points of a call. Returns `false` if they exceed a secondary limit.
    pub(crate) fn spend_points(
        &mut self,
        endpoint: &str,
        points: u64,
        settings: &Settings,
        now: u64,
    ) -> bool {
        if !settings.secondary_limits {
            return true;
        }
        if self.in_flight > settings.concurrent_calls {
            return false;
        }
        let calls = self.points.entry(endpoint.to_owned()).or_default();
        while calls.front().is_some_and(|(at, _)| at + 60_000 <= now) {
            calls.pop_front();
        }
        let spent: u64 = calls.iter().map(|(_, points)| points).sum();
        if spent + points > settings.points_per_minute {
            return false;
        }
        calls.push_back((now, points));
        true
    }

    /// Counts a registration. Returns `false` if there are too many in five minutes.
    pub(crate) fn spend_registration(
        &mut self,
        account: &str,
        settings: &Settings,
        now: u64,
    ) -> bool {
        if !settings.secondary_limits {
            return true;
        }
        let times = self.registrations.entry(account.to_owned()).or_default();
        while times.front().is_some_and(|at| at + 300_000 <= now) {
            times.pop_front();
        }
        if times.len() >= settings.registrations_per_five_minutes {
            return false;
        }
        times.push_back(now);
        true
    }

    /// Records that the client was told to wait until `until`, unix milliseconds.
    pub(crate) fn announce(&mut self, now: u64, until: u64) {
        if now >= self.announced_until {
            self.announced_at = now;
        }
        self.announced_until = self.announced_until.max(until);
    }

    /// Returns the age in milliseconds of the announcement of a limit that holds.
    pub(crate) fn announced_for(&self, now: u64) -> Option<u64> {
        (now < self.announced_until).then(|| now.saturating_sub(self.announced_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_refills_when_it_ends() {
        let settings = Settings {
            rate_limit: 2,
            rate_window_ms: 1000,
            ..Settings::default()
        };
        let mut limits = RateLimits::default();
        assert!(limits.spend("t", Bucket::Core, &settings, 10).is_some());
        assert!(limits.spend("t", Bucket::Core, &settings, 20).is_some());
        assert!(limits.spend("t", Bucket::Core, &settings, 1009).is_none());
        assert!(
            limits
                .spend("t", Bucket::Registration, &settings, 30)
                .is_some()
        );
        assert!(limits.spend("t", Bucket::Core, &settings, 1010).is_some());
    }

    #[test]
    fn five_minutes_hold_1500_registrations_of_an_account() {
        let settings = Settings {
            secondary_limits: true,
            ..Settings::default()
        };
        let mut limits = RateLimits::default();
        for n in 0..1_500 {
            assert!(limits.spend_registration("t", &settings, n), "{n}");
        }
        assert!(!limits.spend_registration("t", &settings, 299_999));
        assert!(limits.spend_registration("u", &settings, 299_999));
        assert!(limits.spend_registration("t", &settings, 300_000));
    }

    #[test]
    fn a_minute_holds_180_mutations() {
        let settings = Settings {
            secondary_limits: true,
            ..Settings::default()
        };
        let mut limits = RateLimits::default();
        for n in 0..180 {
            assert!(limits.spend_points("mint", 5, &settings, n), "{n}");
        }
        assert!(!limits.spend_points("mint", 5, &settings, 59_999));
        assert!(limits.spend_points("mint", 5, &settings, 60_000));
    }
}
