//! Time in the core: a number that the caller read from a clock.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// Milliseconds since the host booted, suspended time included (`CLOCK_BOOTTIME`).
///
/// Wall-clock time would not do, because an NTP step must not end a job. This clock outlives the
/// daemon, so ages stay right over a restart. It ends with the boot, as every container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Returns the moment this many milliseconds after boot.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since boot.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Returns the time since `earlier`, or zero if `earlier` is in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot+{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}
