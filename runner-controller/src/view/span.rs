//! Durations for people.

use std::time::Duration;

/// Returns a duration in its two largest units, for example `1h 1m`.
#[must_use]
pub fn span(millis: u64) -> String {
    let rounded = if millis < 1000 {
        Duration::from_millis(millis / 100 * 100)
    } else {
        Duration::from_secs(millis / 1000)
    };
    let text = humantime::format_duration(rounded).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
