//! Pauses of threads that another thread can end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Interval at which a thread checks whether it should stop.
pub(super) const CHECK: Duration = Duration::from_millis(50);

/// Sleeps for `pause`, or until `stop` is set.
pub(super) fn sleep_unless(pause: Duration, stop: &AtomicBool) {
    let start = Instant::now();
    while start.elapsed() < pause && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(CHECK.min(pause));
    }
}
