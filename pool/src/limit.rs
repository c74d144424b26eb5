//! A rate limit of GitHub that outlives the daemon.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::time::Timestamp;

/// Maximum length of a limit on record; see `github::budget`.
const MAX_LIMIT: Duration = Duration::from_mins(66);

/// A rate limit on record, so that the next daemon keeps to it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// The boot in which `until` is counted.
    pub boot_id: String,
    /// End of the limit by the clock of that boot.
    pub until: Timestamp,
    /// End of the limit in milliseconds since 1970.
    pub until_unix_ms: u64,
    /// The account that the limit is about.
    pub account: String,
}

/// Rest of a rate limit on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// The limit is over, or is about another account.
    Over,
    /// The limit lasts this long.
    Lasts(Duration),
    /// The limit would last longer than any does. The wall clock was wrong when it was written, or is
    /// wrong now.
    TooLong,
}

impl RateLimit {
    /// Returns the rest of the limit for `account`.
    #[must_use]
    pub fn rest(&self, account: &str, boot_id: &str, now: Timestamp, unix_ms: u64) -> Rest {
        if self.account != account {
            return Rest::Over;
        }
        // Only the clock of one boot is never set.
        let rest = if self.boot_id == boot_id {
            self.until.since(now)
        } else {
            Duration::from_millis(self.until_unix_ms.saturating_sub(unix_ms))
        };
        match rest {
            Duration::ZERO => Rest::Over,
            rest if rest > MAX_LIMIT => Rest::TooLong,
            rest => Rest::Lasts(rest),
        }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (boot_id, until) = (&self.boot_id, self.until.millis());
        let (unix_ms, account) = (self.until_unix_ms, &self.account);
        write!(f, "{boot_id} {until} {unix_ms} {account}")
    }
}

impl FromStr for RateLimit {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.splitn(4, ' ');
        let mut word = || words.next().ok_or(());
        let millis = |text: &str| text.parse::<u64>().map_err(|_| ());
        Ok(Self {
            boot_id: word()?.to_owned(),
            until: Timestamp::from_millis(millis(word()?)?),
            until_unix_ms: millis(word()?)?,
            account: word()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn rest(text: &str) -> Rest {
        let limit: RateLimit = text.parse().unwrap();
        assert_eq!(limit.to_string(), text);
        limit.rest(
            "api acme token",
            "b1",
            Timestamp::from_millis(10 * MINUTE_MS),
            0,
        )
    }

    #[test]
    fn a_limit_lasts_by_the_clock_of_its_boot() {
        let lasts = Rest::Lasts(Duration::from_mins(5));
        assert_eq!(rest("b1 900000 0 api acme token"), lasts);
        assert_eq!(rest("b1 600000 900000 api acme token"), Rest::Over);
    }

    #[test]
    fn a_limit_of_another_boot_lasts_by_the_wall_clock_within_reason() {
        let lasts = Rest::Lasts(Duration::from_mins(20));
        assert_eq!(rest("b0 7 1200000 api acme token"), lasts);
        assert_eq!(rest("b0 7 0 api acme token"), Rest::Over);
        assert_eq!(rest("b0 7 1800000000 api acme token"), Rest::TooLong);
    }

    #[test]
    fn a_limit_of_another_account_is_over() {
        assert_eq!(rest("b0 7 1200000 api acme app 7"), Rest::Over);
    }

    #[test]
    fn other_text_is_not_a_limit() {
        for text in ["", "b1", "b1 x y z", "b1 7", "b1 7 -1 z", "b1 7 7"] {
            assert_eq!(text.parse::<RateLimit>(), Err(()), "{text}");
        }
    }
}
