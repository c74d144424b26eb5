//! Clocks, which the core does not read itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::pool::Timestamp;

/// Returns the time since the host booted, suspended time included.
#[must_use]
pub(crate) fn now() -> Timestamp {
    // CLOCK_BOOTTIME exists since Linux 2.6.39, which is older than any supported kernel.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default();
    Timestamp::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Returns the milliseconds since 1970.
#[must_use]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the id of the boot (proc(5), `/proc/sys/kernel/random/boot_id`); empty if it cannot be read.
#[must_use]
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}
