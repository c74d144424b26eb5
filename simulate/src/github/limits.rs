//! GitHub's rate limits: what is counted, and how it is announced.

use std::collections::BTreeMap;

use crate::api::{AnnouncedLimits, Endpoint};
use crate::clock;
use crate::fault::LimitNotice;

/// The wait that GitHub's documentation asks for after a secondary limit without a time, in milliseconds.
const WAIT_WITHOUT_TIME_MS: u64 = 60_000;

/// A counted window.
#[derive(Debug, Clone)]
struct Window {
    limit: u64,
    used: u64,
    resets_at: u64,
}

/// The primary limits, one for each resource.
#[derive(Debug)]
pub(super) struct Limits {
    windows: BTreeMap<&'static str, Window>,
    /// Calls in a window.
    limit: u64,
    window_ms: u64,
}

/// A counted call.
pub(super) struct Counted {
    /// Headers of its answer.
    pub(super) headers: Vec<(&'static str, String)>,
    /// The form in which it is refused.
    pub(super) refused: Option<LimitNotice>,
    /// The limits that its answer announces.
    pub(super) announced: AnnouncedLimits,
}

impl Limits {
    pub(super) fn new(limit: u64, window_ms: u64) -> Self {
        Self {
            windows: BTreeMap::new(),
            limit,
            window_ms,
        }
    }

    /// Sets the limit of the windows that begin from now on.
    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Gives back a call that is free of charge.
    pub(super) fn refund(&mut self, endpoint: Endpoint, now: u64) {
        let window = self.window(endpoint.resource(), now);
        window.used = window.used.saturating_sub(1);
    }

    fn window(&mut self, resource: &'static str, now: u64) -> &mut Window {
        let (limit, window_ms) = (self.limit, self.window_ms);
        let fresh = || Window {
            limit,
            used: 0,
            resets_at: whole_seconds(now + window_ms),
        };
        let window = self.windows.entry(resource).or_insert_with(fresh);
        if now >= window.resets_at {
            *window = fresh();
        }
        window
    }

    /// Counts a call. `limited` is a limit beyond the windows, with its end.
    pub(super) fn count(
        &mut self,
        endpoint: Endpoint,
        limited: Option<(u64, LimitNotice)>,
        now: u64,
    ) -> Counted {
        let resource = endpoint.resource();
        let limited = limited.filter(|(until, _)| now < *until);
        let window = self.window(resource, now);
        let used_up = window.used >= window.limit;
        if !used_up && limited.is_none() {
            window.used += 1;
        }
        let left = window.limit - window.used;
        let (limit, reset) = (window.limit, window.resets_at);
        let (left, reset, refused) = match limited {
            // Retry-After counts whole seconds from now.
            Some((until, notice @ LimitNotice::RetryAfter)) => (
                left,
                reset,
                Some((now + whole_seconds(until - now), notice)),
            ),
            Some((_, notice @ LimitNotice::NoTime)) => {
                (left, reset, Some((now + WAIT_WITHOUT_TIME_MS, notice)))
            }
            Some((until, notice @ LimitNotice::Primary)) => {
                let until = whole_seconds(until);
                (0, until, Some((until, notice)))
            }
            None => {
                let refused = used_up.then_some((reset, LimitNotice::Primary));
                (left, reset, refused)
            }
        };
        let epoch = clock::true_unix_ms() - now;
        Counted {
            headers: vec![
                ("x-ratelimit-limit", limit.to_string()),
                ("x-ratelimit-remaining", left.to_string()),
                ("x-ratelimit-reset", ((epoch + reset) / 1000).to_string()),
                ("x-ratelimit-resource", resource.to_owned()),
            ],
            refused: refused.map(|(_, notice)| notice),
            announced: AnnouncedLimits {
                refused_until: refused.map(|(until, _)| until),
                empty_until: (left == 0).then_some((resource, reset)),
            },
        }
    }
}

/// Rounds milliseconds up to whole seconds, as headers tell them.
fn whole_seconds(ms: u64) -> u64 {
    ms.div_ceil(1000) * 1000
}
