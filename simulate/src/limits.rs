//! GitHub's limits: what is counted, and how it is told.

use std::collections::BTreeMap;

use crate::books::Call;
use crate::clock;
use crate::world::Inner;

/// How a limit is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// `retry-after`.
    RetryAfter,
    /// A secondary limit that names no time.
    NoTime,
    /// `x-ratelimit-remaining: 0` and a reset.
    Primary,
}

/// A counted window.
#[derive(Debug, Clone)]
struct Window {
    limit: u64,
    used: u64,
    resets_at: u64,
}

/// The primary limits.
#[derive(Debug, Clone, Default)]
pub struct Windows {
    by_resource: BTreeMap<&'static str, Window>,
    /// Calls in an hour, for each of the two.
    pub limit: u64,
    /// How long a window is.
    pub length: u64,
}

impl Windows {
    /// Takes back what was free of charge.
    pub fn refund(&mut self, resource: &'static str, now: u64) {
        let window = self.of(resource, now);
        window.used = window.used.saturating_sub(1);
    }

    fn of(&mut self, resource: &'static str, now: u64) -> &mut Window {
        let (limit, length) = (self.limit.max(1), self.length.max(1));
        let fresh = || Window {
            limit,
            used: 0,
            // Whole seconds, as the header tells them.
            resets_at: (now + length).div_ceil(1000) * 1000,
        };
        let window = self.by_resource.entry(resource).or_insert_with(fresh);
        if now >= window.resets_at {
            *window = fresh();
        }
        window
    }
}

/// What the limits say about a call, and what the daemon learns by it.
pub struct Counted {
    /// What every answer tells.
    pub headers: Vec<(&'static str, String)>,
    /// Refused, and until when the daemon is to be quiet.
    pub refused: Option<(u64, Manner)>,
    /// Which of the two it counts for.
    pub resource: &'static str,
    /// Nothing is left of it until then.
    pub empty_until: Option<u64>,
}

impl Inner {
    /// Counts a call.
    pub fn count_call(&mut self, call: Call) -> Counted {
        let now = self.now();
        let resource = match call {
            Call::Mint => "actions_runner_registration",
            Call::List | Call::Page | Call::Delete => "core",
        };
        let limited = self.github.mood.limited.filter(|(until, _)| now < *until);
        let window = self.github.windows.of(resource, now);
        let over = window.used >= window.limit;
        if !over && limited.is_none() {
            window.used += 1;
        }
        let left = window.limit - window.used;
        let (limit, reset) = (window.limit, window.resets_at);
        let epoch = clock::true_unix_ms() - now;
        let (left, reset, refused) = match limited {
            // Retry-after counts whole seconds from now.
            Some((until, Manner::RetryAfter)) => {
                let until = now + (until - now).div_ceil(1000) * 1000;
                (left, reset, Some((until, Manner::RetryAfter)))
            }
            Some((_, Manner::NoTime)) => (left, reset, Some((now + 60_000, Manner::NoTime))),
            Some((until, Manner::Primary)) => {
                let until = until.div_ceil(1000) * 1000;
                (0, until, Some((until, Manner::Primary)))
            }
            None => (left, reset, over.then_some((reset, Manner::Primary))),
        };
        Counted {
            headers: vec![
                ("x-ratelimit-limit", limit.to_string()),
                ("x-ratelimit-remaining", left.to_string()),
                ("x-ratelimit-reset", ((epoch + reset) / 1000).to_string()),
                ("x-ratelimit-resource", resource.to_owned()),
            ],
            refused,
            resource,
            empty_until: (left == 0).then_some(reset),
        }
    }
}
