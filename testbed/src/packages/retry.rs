//! Repeats what may succeed later.

use std::time::Duration;

use anyhow::{Error, Result};

use crate::bed::note;

/// The number of attempts, and the pause between two.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Attempts in all.
    pub attempts: u32,
    /// Pause before the second attempt; each later one is twice as long.
    pub pause: Duration,
}

impl Retry {
    /// A mirror that is being updated is whole again after seconds.
    pub const MIRROR: Self = Self {
        attempts: 3,
        pause: Duration::from_secs(5),
    };

    /// Repeats `attempt`, which is given its number from 0, until it succeeds. Returns the last error.
    ///
    /// `what` says what is attempted, as in "build the host".
    pub fn run<T>(self, what: &str, mut attempt: impl FnMut(u32) -> Result<T>) -> Result<T> {
        let mut pause = self.pause;
        let mut number = 0;
        loop {
            let error: Error = match attempt(number) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            number += 1;
            if number >= self.attempts {
                return Err(error);
            }
            note(&format!(
                "cannot {what}: {error:#}; attempt {} of {} follows in {}",
                number + 1,
                self.attempts,
                humantime::format_duration(pause)
            ));
            std::thread::sleep(pause);
            pause *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    const QUICK: Retry = Retry {
        attempts: 3,
        pause: Duration::ZERO,
    };

    #[test]
    fn the_first_success_ends_the_attempts() {
        let mut calls = 0;
        let done = QUICK.run("succeed", |number| {
            calls += 1;
            if number == 1 { Ok(number) } else { bail!("no") }
        });
        assert_eq!((done.unwrap(), calls), (1, 2));
    }

    #[test]
    fn the_last_error_is_returned() {
        let error = QUICK.run::<()>("fail", |number| bail!("failure {number}"));
        assert_eq!(error.unwrap_err().to_string(), "failure 2");
    }
}
