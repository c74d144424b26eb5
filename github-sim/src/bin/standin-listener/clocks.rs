//! The clocks of GitHub's listener, as measured on actions/runner 2.336.0, and their scale in tests.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

/// Time without an answer of the server after which an idle listener ends.
pub(crate) const IDLE_PATIENCE: Duration = Duration::from_secs(708);
/// Pause between two tries to open a session, in seconds. Seven of them make the 210 s of a conflict.
pub(crate) const SESSION_PAUSE_S: RangeInclusive<u64> = 30..=30;
/// Pause between two tries of a call, in seconds.
pub(crate) const CALL_PAUSE_S: RangeInclusive<u64> = 5..=15;
/// Pauses before the next job after jobs that could not be acquired, in seconds.
pub(crate) const SKIP_PAUSES_S: [u64; 4] = [0, 1, 2, 4];
/// Interval between renewals of a job's lock.
pub(crate) const RENEW_EVERY: Duration = Duration::from_mins(1);
/// Time from the first missed renewal to the cancellation of the job.
pub(crate) const RENEW_PATIENCE: Duration = Duration::from_secs(40);
/// The same after answers of 503, which the listener's HTTP client repeats by itself.
pub(crate) const UNAVAILABLE_PATIENCE: Duration = Duration::from_secs(250);
/// Time for the first renewal, before which no worker starts.
pub(crate) const FIRST_RENEWAL_PATIENCE: Duration = Duration::from_secs(244);
/// Number of reports of a job's end by the worker, and the pause between two: 224 s in all.
pub(crate) const WORKER_REPORTS: (u32, Duration) = (25, Duration::from_millis(9_300));
/// The same for the listener, which reports a failure then: until 264 s.
pub(crate) const LISTENER_REPORTS: (u32, Duration) = (5, Duration::from_secs(8));
/// Time that the listener takes off the patience of a cancellation: 285 s of 300 s.
pub(crate) const CANCEL_MARGIN_S: u64 = 15;
/// Time that a job has after a signal to the listener.
pub(crate) const SIGNAL_PATIENCE: Duration = Duration::from_secs(30);
/// Time from SIGINT to SIGTERM for the first process of a cancelled step.
pub(crate) const UNTIL_SIGTERM: Duration = Duration::from_millis(7_500);
/// Time from SIGINT to SIGKILL.
pub(crate) const UNTIL_SIGKILL: Duration = Duration::from_secs(10);

/// Scale of the clocks.
#[derive(Clone, Copy)]
pub(crate) struct Clocks {
    speed: u32,
    pause: Option<Duration>,
}

impl Clocks {
    /// Reads `STANDIN_SPEED`, which divides every clock, and `STANDIN_BACKOFF_MS`, which replaces the
    /// pauses between tries.
    pub(crate) fn of(env: &BTreeMap<String, String>) -> Self {
        let number = |name| env.get(name).and_then(|text: &String| text.parse().ok());
        Self {
            speed: number("STANDIN_SPEED").unwrap_or(1).max(1),
            pause: number("STANDIN_BACKOFF_MS").map(|ms| Duration::from_millis(ms.into())),
        }
    }

    /// Returns a clock of GitHub's listener in this scale.
    pub(crate) fn scaled(self, time: Duration) -> Duration {
        time / self.speed
    }

    /// Returns a pause between two tries.
    pub(crate) fn pause(self, seconds: RangeInclusive<u64>) -> Duration {
        self.pause.unwrap_or_else(|| {
            let (least, most) = (seconds.start() * 1000, seconds.end() * 1000);
            self.scaled(Duration::from_millis(rand::random_range(least..=most)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(pairs: &[(&str, &str)]) -> Clocks {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        Clocks::of(&pairs.collect())
    }

    #[test]
    fn a_speed_divides_every_clock() {
        assert_eq!(clocks(&[]).scaled(IDLE_PATIENCE), IDLE_PATIENCE);
        let quick = clocks(&[("STANDIN_SPEED", "60")]);
        assert_eq!(quick.scaled(RENEW_EVERY), Duration::from_secs(1));
        assert_eq!(quick.pause(SESSION_PAUSE_S), Duration::from_millis(500));
    }

    #[test]
    fn a_backoff_replaces_pauses_and_no_other_clock() {
        let short = clocks(&[("STANDIN_BACKOFF_MS", "20")]);
        assert_eq!(short.pause(CALL_PAUSE_S), Duration::from_millis(20));
        assert_eq!(short.scaled(RENEW_EVERY), RENEW_EVERY);
    }
}
