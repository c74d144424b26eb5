//! Waiting for a state: with a deadline, and with what was last seen for the day it passes.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Result of one observation.
#[derive(Debug)]
pub enum Seen<T> {
    /// The awaited value.
    Done(T),
    /// Not yet, and how it looks instead.
    NotYet(String),
}

/// Looks until it is done. An error of a look ends the wait; a state that may pass is `NotYet`.
///
/// `what` finishes the sentence "waited 5 s for …".
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Seen<T>>,
) -> Result<T> {
    let start = Instant::now();
    // A look costs a process or a request; short waits get short pauses, long ones do not spin.
    let mut pause = Duration::from_millis(5);
    loop {
        let seen = match look()? {
            Seen::Done(value) => return Ok(value),
            Seen::NotYet(seen) => seen,
        };
        if start.elapsed() >= limit {
            bail!(
                "waited {} for {what}; last seen: {seen}",
                humantime::format_duration(limit)
            );
        }
        std::thread::sleep(pause);
        pause = (pause * 5 / 4).min(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_times_out_tells_what_it_saw() {
        let error = wait_until::<()>("rain", Duration::from_millis(12), || {
            Ok(Seen::NotYet("sunshine".into()))
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "waited 12ms for rain; last seen: sunshine"
        );
    }

    #[test]
    fn a_wait_ends_with_what_was_found() {
        let mut looks = 0;
        let found = wait_until("three", Duration::from_secs(5), || {
            looks += 1;
            Ok(if looks == 3 {
                Seen::Done(looks)
            } else {
                Seen::NotYet(looks.to_string())
            })
        });
        assert_eq!(found.unwrap(), 3);
    }
}
