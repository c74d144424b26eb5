//! The clocks of one history. The daemon reads them through plain functions, as it reads the real ones, so they
//! belong to the thread that plays the history.

use std::cell::RefCell;

use runner_controller::pool::Timestamp;
use tokio::time::Instant;

use crate::random::{Random, Stream};

/// Wall-clock time at which every history begins, in milliseconds since 1970: a moment in 2026.
const EPOCH_MS: u64 = 1_790_000_000_000;
/// Uptime of the host when a daemon first starts on it.
const UPTIME_MS: u64 = 9_000;

struct Clocks {
    began: Instant,
    /// Time of the host's last boot, in milliseconds of the history.
    booted_ms: u64,
    /// Error of the host's wall clock.
    wall_error_ms: i64,
    random: Random,
}

thread_local! {
    static CLOCKS: RefCell<Option<Clocks>> = const { RefCell::new(None) };
}

/// Sets all clocks of this thread for a new history. Must be called in the history's paused runtime.
pub(crate) fn begin(seed: u64) {
    CLOCKS.set(Some(Clocks {
        began: Instant::now(),
        booted_ms: 0,
        wall_error_ms: 0,
        random: Random::new(seed, Stream::Daemon),
    }));
}

fn read<T>(default: T, read: impl FnOnce(&mut Clocks) -> T) -> T {
    CLOCKS.with_borrow_mut(|clocks| clocks.as_mut().map_or(default, read))
}

/// Returns milliseconds since the history began.
#[must_use]
pub(crate) fn elapsed() -> u64 {
    read(0, |clocks| {
        u64::try_from(clocks.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    })
}

/// Returns the runtime's instant for a time of the history.
#[must_use]
pub(crate) fn instant(at: u64) -> Instant {
    let now = elapsed();
    Instant::now() + std::time::Duration::from_millis(at.saturating_sub(now))
}

/// Returns the daemon's `CLOCK_BOOTTIME`.
#[must_use]
pub(crate) fn now() -> Timestamp {
    let since_boot = elapsed().saturating_sub(read(0, |clocks| clocks.booted_ms));
    Timestamp::from_millis(UPTIME_MS + since_boot)
}

/// Returns the host's wall clock, which may be wrong.
#[must_use]
pub(crate) fn unix_ms() -> u64 {
    true_unix_ms().saturating_add_signed(read(0, |clocks| clocks.wall_error_ms))
}

/// Returns GitHub's wall clock, which is right.
#[must_use]
pub(crate) fn true_unix_ms() -> u64 {
    EPOCH_MS + elapsed()
}

/// Returns a random number for the daemon.
#[must_use]
pub(crate) fn random() -> u32 {
    read(0, |clocks| clocks.random.any())
}

/// Restarts `CLOCK_BOOTTIME`, because the host boots.
pub(crate) fn reboot() {
    let now = elapsed();
    read((), |clocks| clocks.booted_ms = now);
}

/// Sets the error of the host's wall clock.
pub(crate) fn set_wall_error(error_ms: i64) {
    read((), |clocks| clocks.wall_error_ms = error_ms);
}
