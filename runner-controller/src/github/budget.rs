//! The decision when GitHub may be asked. Pure: headers and the time come in, a yes or a wait goes
//! out.
//!
//! The rules are GitHub's ("Rate limits for the REST API"): `retry-after` first, then
//! `x-ratelimit-reset` when nothing remains, then a minute that doubles for secondary limits that
//! name no time. GitHub may ban a token that goes on calling while limited, so every call waits once
//! GitHub has refused a call for a limit. An empty window only holds the calls that count in it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;

use super::operation::Operation;
use crate::world::MintWindow;

/// First wait after a secondary limit that names no time. It doubles each time in a row.
const SECONDARY_WAIT: Duration = Duration::from_mins(1);

/// Maximum wait after a secondary limit that names no time.
const LONGEST_SECONDARY_WAIT: Duration = Duration::from_mins(16);

/// Maximum wait that is believed. Primary windows last an hour. A longer wait is a server's mistake;
/// if it is not, one call an hour does no harm.
const LONGEST_WAIT: Duration = Duration::from_mins(65);

/// Divisor of a window's limit below which background calls stop: a fifth.
const RESERVE: u64 = 5;

/// Maximum number of windows. GitHub has about ten resources, and a server that invents more must not
/// fill the memory.
const MAX_WINDOWS: usize = 16;

/// The headers of an answer that announce limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LimitHeaders {
    pub(super) retry_after: Option<Duration>,
    pub(super) limit: Option<u64>,
    pub(super) remaining: Option<u64>,
    /// Unix seconds by the server's clock. This number identifies the window.
    pub(super) reset: Option<u64>,
    /// Time until the reset, by the server's clock if the answer has a `Date`.
    pub(super) reset_in: Option<Duration>,
    pub(super) resource: Option<String>,
}

impl LimitHeaders {
    /// Reads the headers. `clock` is used only if the answer has no `Date`.
    pub(super) fn read(headers: &HeaderMap, clock: SystemTime) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name: &str| text(name).and_then(|value| value.trim().parse::<u64>().ok());
        // This host's clock may be wrong by more than a window, so the server's clock counts.
        let now = text("date")
            .and_then(|date| httpdate::parse_http_date(date).ok())
            .unwrap_or(clock)
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let reset = number("x-ratelimit-reset");
        Self {
            retry_after: text("retry-after").map(|value| {
                // A date instead of seconds is allowed by HTTP and not used by GitHub.
                let seconds = value.trim().parse().map(Duration::from_secs);
                seconds.unwrap_or(SECONDARY_WAIT)
            }),
            limit: number("x-ratelimit-limit"),
            remaining: number("x-ratelimit-remaining"),
            reset,
            // Both clocks count whole seconds: one more is on the safe side.
            reset_in: reset
                .map(|reset| Duration::from_secs(reset.saturating_sub(now).saturating_add(1))),
            resource: text("x-ratelimit-resource")
                .map(|name| name.chars().take(64).collect::<String>()),
        }
    }
}

/// The kind of limit that an answer announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// None.
    None,
    /// The window is used up.
    Primary,
    /// Too many calls at once, or for too long.
    Secondary,
}

/// A window of a rate limit as last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// `x-ratelimit-resource`: `core`, `actions_runner_registration`, …; empty if the answer has none.
    pub resource: String,
    /// Calls in a whole window.
    pub limit: u64,
    /// Calls left; the whole window once it has been reset.
    pub remaining: u64,
    /// Time until the window is reset; zero once it has been.
    pub resets_in: Duration,
    /// Time of the reset by GitHub's clock, in seconds since 1970.
    pub reset_unix_s: u64,
}

/// The reason why a call must not leave now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Withheld {
    pub(super) why: String,
    pub(super) wait: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    limit: u64,
    remaining: u64,
    reset: u64,
    resets_at: Instant,
}

/// The limits of one client.
#[derive(Debug, Default)]
pub(super) struct Budget {
    windows: BTreeMap<String, Window>,
    /// The window that each operation was last counted in.
    resource_of: BTreeMap<Operation, String>,
    /// The moment before which no call leaves, and the reason.
    held: Option<(Instant, &'static str)>,
    /// Number of secondary limits without a time in a row.
    repeats: u32,
}

impl Budget {
    /// Allows or withholds a call.
    pub(super) fn admit(&self, operation: Operation, now: Instant) -> Result<(), Withheld> {
        if let Some((until, why)) = self.held
            && now < until
        {
            return Err(Withheld {
                why: why.to_owned(),
                wait: until - now,
            });
        }
        let known = self.resource_of.get(&operation);
        for (resource, window) in &self.windows {
            // An operation without an answer so far may count in any window.
            if now >= window.resets_at || known.is_some_and(|known| known != resource) {
                continue;
            }
            let Window {
                limit, remaining, ..
            } = window;
            let wait = window.resets_at - now;
            if *remaining == 0 {
                let why = format!("the rate limit of {limit} calls ({resource}) is used up");
                return Err(Withheld { why, wait });
            }
            if operation.is_background() && *remaining < limit / RESERVE {
                let why = format!(
                    "{remaining} of {limit} calls ({resource}) are left and reserved for mints and deletions"
                );
                return Err(Withheld { why, wait });
            }
        }
        Ok(())
    }

    /// Withholds every call for this long, because GitHub asked an earlier daemon to wait.
    pub(super) fn hold(&mut self, wait: Duration, now: Instant) {
        let until = now + bounded(wait);
        self.held = Some((until, "GitHub asked an earlier daemon to wait"));
    }

    /// Returns the time for which every call is withheld.
    pub(super) fn held(&self, now: Instant) -> Option<Duration> {
        let (until, _) = self.held.filter(|(until, _)| now < *until)?;
        Some(until - now)
    }

    /// Records an answer. Returns how long not to call, if the answer announces a limit.
    pub(super) fn observe(
        &mut self,
        operation: Operation,
        headers: &LimitHeaders,
        limit: Limit,
        now: Instant,
    ) -> Option<Duration> {
        self.update_window(operation, headers, now);
        let reset_in = headers.reset_in.filter(|_| headers.remaining == Some(0));
        let (wait, why) = match (limit, headers.retry_after, reset_in) {
            (Limit::None, ..) => {
                self.repeats = 0;
                return None;
            }
            (Limit::Primary | Limit::Secondary, Some(wait), _) => (wait, "GitHub asked to wait"),
            (Limit::Primary, None, Some(wait)) => (wait, "GitHub's rate limit is used up"),
            (Limit::Primary, None, None) | (Limit::Secondary, None, _) => {
                let wait = SECONDARY_WAIT * 2_u32.saturating_pow(self.repeats.min(8));
                self.repeats = self.repeats.saturating_add(1);
                let wait = wait.min(LONGEST_SECONDARY_WAIT);
                (wait, "a secondary rate limit was exceeded")
            }
        };
        let wait = bounded(wait);
        // Answers may arrive out of order, so the longer wait holds.
        let until = now + wait;
        if self.held.is_none_or(|(held, _)| held < until) {
            self.held = Some((until, why));
        }
        Some(wait)
    }

    /// Records a refusal that is not a limit. Only its window counts, because a refusal does not show
    /// that an earlier limit is over.
    pub(super) fn observe_refusal(
        &mut self,
        operation: Operation,
        headers: &LimitHeaders,
        now: Instant,
    ) {
        self.update_window(operation, headers, now);
    }

    fn update_window(&mut self, operation: Operation, headers: &LimitHeaders, now: Instant) {
        let LimitHeaders {
            limit: Some(limit),
            remaining: Some(remaining),
            reset: Some(reset),
            reset_in: Some(reset_in),
            resource,
            ..
        } = headers
        else {
            return;
        };
        let resource = resource.clone().unwrap_or_default();
        let known = self.windows.get(&resource);
        if known.is_none() && self.windows.len() >= MAX_WINDOWS {
            return;
        }
        // Answers to concurrent calls do not arrive in the order of GitHub's count.
        let remaining = match known {
            Some(known) if known.reset == *reset => known.remaining.min(*remaining),
            Some(_) | None => *remaining,
        };
        self.resource_of.insert(operation, resource.clone());
        self.windows.insert(
            resource,
            Window {
                limit: *limit,
                remaining,
                reset: *reset,
                resets_at: now + bounded(*reset_in),
            },
        );
    }

    /// Returns the window in which mints were last counted, until its reset.
    pub(super) fn mint_window(&self, now: Instant) -> Option<MintWindow> {
        let resource = self.resource_of.get(&Operation::Mint)?;
        let window = self.windows.get(resource)?;
        let resets_in = window.resets_at.saturating_duration_since(now);
        (!resets_in.is_zero()).then_some(MintWindow {
            limit: window.limit,
            remaining: window.remaining,
            resets_in,
        })
    }

    /// Returns every window, for metrics.
    pub(super) fn quotas(&self, now: Instant) -> Vec<Quota> {
        self.windows
            .iter()
            .map(|(resource, window)| {
                let resets_in = window.resets_at.saturating_duration_since(now);
                Quota {
                    resource: resource.clone(),
                    limit: window.limit,
                    remaining: if resets_in.is_zero() {
                        window.limit
                    } else {
                        window.remaining
                    },
                    resets_in,
                    reset_unix_s: window.reset,
                }
            })
            .collect()
    }
}

fn bounded(wait: Duration) -> Duration {
    wait.clamp(Duration::from_secs(1), LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &str)]) -> LimitHeaders {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        LimitHeaders::read(&headers, SystemTime::UNIX_EPOCH)
    }

    fn window(resource: &str, remaining: &str) -> LimitHeaders {
        read(&[
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", remaining),
            // 100 s after the date.
            ("x-ratelimit-reset", "784111877"),
            ("x-ratelimit-resource", resource),
        ])
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_wait_that_an_earlier_daemon_was_given_holds() {
        let now = Instant::now();
        let mut budget = Budget::default();
        budget.hold(Duration::from_secs(30), now);
        let withheld = budget.admit(Operation::Mint, now).unwrap_err();
        assert_eq!(withheld.wait, Duration::from_secs(30));
        assert_eq!(budget.admit(Operation::Mint, now + withheld.wait), Ok(()));
        budget.hold(Duration::MAX, now);
        assert_eq!(budget.admit(Operation::Mint, now + LONGEST_WAIT), Ok(()));
    }

    #[test]
    fn a_reset_is_read_by_the_servers_clock() {
        assert_eq!(window("core", "0").reset_in, Some(101 * SECOND));
        // A reset that has passed means a short wait.
        let late = read(&[
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("x-ratelimit-reset", "784000000"),
        ]);
        assert_eq!(late.reset_in, Some(SECOND));
    }

    #[test]
    fn no_call_leaves_before_retry_after_has_passed() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        let headers = read(&[("retry-after", "7")]);
        let wait = budget.observe(Operation::List, &headers, Limit::Secondary, now);
        assert_eq!(wait, Some(7 * SECOND));
        for operation in [Operation::Mint, Operation::Delete, Operation::List] {
            let withheld = budget.admit(operation, now + 2 * SECOND).unwrap_err();
            assert_eq!(withheld.wait, 5 * SECOND);
            assert_eq!(budget.admit(operation, now + 7 * SECOND), Ok(()));
        }
    }

    #[test]
    fn an_empty_window_holds_the_calls_that_count_in_it() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        budget.observe(
            Operation::Mint,
            &window("registration", "9"),
            Limit::None,
            now,
        );
        budget.observe(Operation::List, &window("core", "0"), Limit::None, now);
        assert_eq!(budget.admit(Operation::Mint, now), Ok(()));
        // Deletions may count in the empty window.
        assert!(budget.admit(Operation::Delete, now).is_err());
        let withheld = budget.admit(Operation::List, now).unwrap_err();
        assert_eq!(withheld.wait, 101 * SECOND);
        assert_eq!(budget.admit(Operation::List, now + 101 * SECOND), Ok(()));
    }

    #[test]
    fn the_window_of_mints_is_known_until_its_reset() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        budget.observe(Operation::List, &window("core", "7"), Limit::None, now);
        assert_eq!(budget.mint_window(now), None);
        let mints = window("registration", "40");
        budget.observe(Operation::Mint, &mints, Limit::None, now);
        let known = budget.mint_window(now).unwrap();
        assert_eq!((known.limit, known.remaining), (5000, 40));
        assert_eq!(known.resets_in, 101 * SECOND);
        assert_eq!(budget.mint_window(now + 101 * SECOND), None);
    }

    #[test]
    fn a_fifth_is_reserved_for_mints_and_deletions() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        budget.observe(Operation::List, &window("core", "1000"), Limit::None, now);
        assert_eq!(budget.admit(Operation::List, now), Ok(()));
        budget.observe(Operation::List, &window("core", "999"), Limit::None, now);
        let withheld = budget.admit(Operation::List, now).unwrap_err();
        assert!(withheld.why.contains("999 of 5000"), "{}", withheld.why);
        for operation in [Operation::Mint, Operation::Delete, Operation::Groups] {
            assert_eq!(budget.admit(operation, now), Ok(()));
        }
    }

    #[test]
    fn answers_out_of_order_do_not_refill_a_window() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        for remaining in ["0", "1"] {
            let headers = window("core", remaining);
            budget.observe(Operation::Mint, &headers, Limit::None, now);
        }
        assert!(budget.admit(Operation::Mint, now).is_err());
        assert_eq!(budget.quotas(now)[0].remaining, 0);
        assert_eq!(budget.quotas(now + 200 * SECOND)[0].remaining, 5000);
    }

    #[test]
    fn a_refusal_holds_every_call_until_the_reset() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        let core = window("core", "4000");
        budget.observe(Operation::List, &core, Limit::None, now);
        let refusal = window("registration", "0");
        let wait = budget.observe(Operation::Mint, &refusal, Limit::Primary, now);
        assert_eq!(wait, Some(101 * SECOND));
        assert!(budget.admit(Operation::List, now + 100 * SECOND).is_err());
        assert_eq!(budget.admit(Operation::List, now + 101 * SECOND), Ok(()));
    }

    #[test]
    fn a_secondary_limit_without_a_time_waits_longer_each_time() {
        let (mut budget, mut now) = (Budget::default(), Instant::now());
        for seconds in [60, 120, 240, 480, 960, 960] {
            let wait = budget.observe(
                Operation::Mint,
                &LimitHeaders::default(),
                Limit::Secondary,
                now,
            );
            assert_eq!(wait, Some(seconds * SECOND));
            assert!(budget.admit(Operation::Mint, now).is_err());
            now += seconds * SECOND;
            assert_eq!(budget.admit(Operation::Mint, now), Ok(()));
        }
        budget.observe(Operation::Mint, &LimitHeaders::default(), Limit::None, now);
        let wait = budget.observe(
            Operation::Mint,
            &LimitHeaders::default(),
            Limit::Secondary,
            now,
        );
        assert_eq!(wait, Some(60 * SECOND));
    }

    #[test]
    fn no_wait_is_longer_than_a_window() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        let headers = read(&[("retry-after", "99999999999")]);
        let wait = budget.observe(Operation::Mint, &headers, Limit::Secondary, now);
        assert_eq!(wait, Some(LONGEST_WAIT));
        let headers = read(&[
            ("x-ratelimit-limit", "1"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "18446744073709551615"),
        ]);
        budget.observe(Operation::Mint, &headers, Limit::Primary, now);
        assert_eq!(budget.quotas(now)[0].resets_in, LONGEST_WAIT);
    }
}
