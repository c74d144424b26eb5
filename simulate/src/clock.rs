//! The clocks of one history, which has its thread for itself: the daemon reads them by plain
//! functions, as it reads the real ones.

use std::cell::RefCell;

use runner_controller::pool::Timestamp;
use tokio::time::Instant;

use crate::rng::Rng;

/// Some moment in 2026.
const EPOCH_MS: u64 = 1_790_000_000_000;

struct Clocks {
    began: Instant,
    /// When the host last booted, on the history's clock.
    booted_ms: u64,
    /// How wrong the wall clock is.
    wall_ms: i64,
    random: Rng,
}

thread_local! {
    static CLOCKS: RefCell<Option<Clocks>> = const { RefCell::new(None) };
}

/// Sets all clocks of this thread for a new history. Within its paused runtime.
pub fn begin(seed: u64) {
    CLOCKS.set(Some(Clocks {
        began: Instant::now(),
        booted_ms: 0,
        wall_ms: 0,
        random: Rng::new(seed ^ 0xd1ce),
    }));
}

fn read<T>(default: T, read: impl FnOnce(&mut Clocks) -> T) -> T {
    CLOCKS.with_borrow_mut(|clocks| clocks.as_mut().map_or(default, read))
}

/// Milliseconds since the history began.
#[must_use]
pub fn elapsed() -> u64 {
    read(0, |clocks| {
        u64::try_from(clocks.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    })
}

/// When the history's clock will show `at`.
#[must_use]
pub fn instant(at: u64) -> Instant {
    let now = elapsed();
    Instant::now() + std::time::Duration::from_millis(at.saturating_sub(now))
}

/// What the daemon takes for `CLOCK_BOOTTIME`. A host is up for a while before the daemon is.
#[must_use]
pub fn now() -> Timestamp {
    let since_boot = elapsed().saturating_sub(read(0, |clocks| clocks.booted_ms));
    Timestamp::from_millis(9_000 + since_boot)
}

/// What the daemon takes for the wall clock.
#[must_use]
pub fn unix_ms() -> u64 {
    true_unix_ms().saturating_add_signed(read(0, |clocks| clocks.wall_ms))
}

/// The wall clock of GitHub, which is right.
#[must_use]
pub fn true_unix_ms() -> u64 {
    EPOCH_MS + elapsed()
}

/// The daemon's randomness.
#[must_use]
pub fn random() -> u32 {
    read(0, |clocks| {
        u32::try_from(clocks.random.any() >> 32).unwrap_or(u32::MAX)
    })
}

/// The host boots now.
pub fn reboot() {
    let now = elapsed();
    read((), |clocks| clocks.booted_ms = now);
}

/// Somebody sets the wall clock wrong by so much.
pub fn jump(wall_ms: i64) {
    read((), |clocks| clocks.wall_ms = wall_ms);
}
