//! Versions of GitHub's runner, and the dates from which GitHub refuses them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time before the end of a version from which an operator is told. A newer runner takes a deploy or a new image.
pub const VERSION_WARNING: Duration = Duration::from_hours(10 * 24);

/// Maximum number of digits of each number in a version.
const MAX_DIGITS: usize = 5;

/// Version of GitHub's runner: three numbers, such as `2.336.0`.
///
/// The listener tells it to GitHub, and GitHub's list shows it. A job can act as the listener, so nothing but the
/// number is believed, and it decides nothing but what is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RunnerVersion([u32; 3]);

/// Text that is not a version of the runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidVersion;

impl fmt::Display for InvalidVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a version of the runner is three numbers, such as 2.336.0")
    }
}

impl FromStr for RunnerVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let mut parts = text.splitn(3, '.').map(|part| {
            let is_number = (1..=MAX_DIGITS).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_digit())
                && (part == "0" || !part.starts_with('0'));
            part.parse().ok().filter(|_| is_number)
        });
        let mut next = || parts.next().flatten().ok_or(InvalidVersion);
        Ok(Self([next()?, next()?, next()?]))
    }
}

impl fmt::Display for RunnerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl From<RunnerVersion> for String {
    fn from(version: RunnerVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for RunnerVersion {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<Self, InvalidVersion> {
        text.parse()
    }
}

/// Dates from which GitHub refuses a version, in milliseconds since 1970; `None` if GitHub has set none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionEnd {
    /// Date from which GitHub registers no runner of the version.
    pub registration_unix_ms: Option<u64>,
    /// Date from which GitHub gives no job to a runner of the version.
    pub runtime_unix_ms: Option<u64>,
}

impl VersionEnd {
    /// Returns the date from which no new runner of the version gets a job. Each runner here registers anew, so
    /// the earlier date counts.
    #[must_use]
    pub fn unix_ms(self) -> Option<u64> {
        let dates = [self.registration_unix_ms, self.runtime_unix_ms];
        dates.into_iter().flatten().min()
    }

    /// Judges the version at a time.
    #[must_use]
    pub fn at(self, now_unix_ms: u64) -> Freshness {
        let Some(end) = self.unix_ms() else {
            return Freshness::Fresh;
        };
        let left = Duration::from_millis(end.saturating_sub(now_unix_ms));
        if left.is_zero() {
            Freshness::Over
        } else if left <= VERSION_WARNING {
            Freshness::NearEnd
        } else {
            Freshness::Fresh
        }
    }
}

/// Judgement of a version by its dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// GitHub accepts it for longer than [`VERSION_WARNING`], or has set no date.
    Fresh,
    /// Its date is near.
    NearEnd,
    /// Its date has passed.
    Over,
}

#[cfg(test)]
mod tests;
