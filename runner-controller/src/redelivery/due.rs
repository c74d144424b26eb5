//! The deliveries that GitHub is asked for once more.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::world::FailedAttempt;

/// Time for which failed deliveries are asked for again. GitHub cancels a job that waited for a day ("Usage limits" of
/// self-hosted runners).
pub(super) const MAX_AGE: Duration = Duration::from_hours(24);
/// Pause before a delivery is asked for once more. It doubles with each attempt, so one that cannot be taken costs a
/// dozen calls in its day.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Maximum number of calls in a sweep. The rest follows with the next one.
const AT_ONCE: usize = 50;

/// Number of attempts for each delivery that failed, as far as this daemon knows.
#[derive(Debug, Default)]
pub(super) struct Asked(BTreeMap<String, u32>);

impl Asked {
    /// Returns the attempt to repeat for each delivery that is due, which is its last one, and the time at which the next
    /// delivery is due. Deliveries on record do not count.
    pub(super) fn due(
        &self,
        failed: &[FailedAttempt],
        is_on_record: impl Fn(&str) -> bool,
        unix_ms: u64,
    ) -> (Vec<FailedAttempt>, Option<u64>) {
        let mut last: BTreeMap<&str, (&FailedAttempt, u32)> = BTreeMap::new();
        for attempt in failed {
            let entry = last.entry(&attempt.delivery).or_insert((attempt, 0));
            entry.1 += 1;
            if (attempt.unix_ms, attempt.id) > (entry.0.unix_ms, entry.0.id) {
                entry.0 = attempt;
            }
        }
        let asked = |delivery: &str| self.0.get(delivery).copied().unwrap_or_default();
        let open = last
            .into_iter()
            .filter(|(delivery, _)| !is_on_record(delivery));
        let (mut due, mut next) = (Vec::new(), None);
        for (delivery, (attempt, seen)) in open {
            let attempts = seen.max(asked(delivery)).max(1);
            let pause = FIRST_PAUSE.saturating_mul(1 << (attempts - 1).min(16));
            let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            let due_at = attempt.unix_ms.saturating_add(pause);
            if due_at <= unix_ms {
                due.push(attempt);
            } else {
                next = Some(next.map_or(due_at, |next: u64| next.min(due_at)));
            }
        }
        // The job that waits longest first.
        due.sort_by_key(|attempt| (attempt.unix_ms, attempt.id));
        (due.into_iter().take(AT_ONCE).cloned().collect(), next)
    }

    /// Counts an attempt that GitHub was asked for, after the first one.
    pub(super) fn asked(&mut self, delivery: &str) {
        *self.0.entry(delivery.to_owned()).or_insert(1) += 1;
    }

    /// Forgets deliveries of which no failed attempt is left.
    pub(super) fn retain(&mut self, failed: &[FailedAttempt]) {
        let is_left = |delivery: &String| failed.iter().any(|f| f.delivery == *delivery);
        self.0.retain(|delivery, _| is_left(delivery));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn attempt(id: u64, delivery: &str, minute: u64) -> FailedAttempt {
        FailedAttempt {
            id,
            delivery: delivery.into(),
            unix_ms: minute * MINUTE,
        }
    }

    fn ids((due, _): &(Vec<FailedAttempt>, Option<u64>)) -> Vec<u64> {
        due.iter().map(|attempt| attempt.id).collect()
    }

    #[test]
    fn the_last_attempt_of_each_delivery_is_repeated_the_oldest_first() {
        let failed = [
            attempt(9, "c", 40),
            attempt(7, "b", 30),
            attempt(6, "a", 20),
            attempt(5, "b", 10),
        ];
        let due = Asked::default().due(&failed, |_| false, 100 * MINUTE);
        assert_eq!(ids(&due), [6, 7, 9]);
    }

    #[test]
    fn a_delivery_on_record_is_not_repeated() {
        let failed = [attempt(2, "b", 1), attempt(1, "a", 1)];
        let due = Asked::default().due(&failed, |delivery| delivery == "a", 100 * MINUTE);
        assert_eq!(ids(&due), [2]);
    }

    #[test]
    fn each_attempt_is_followed_by_a_longer_pause() {
        let mut asked = Asked::default();
        let mut seconds = Vec::new();
        for id in 1..=5 {
            let failed = [attempt(id, "a", 0)];
            let (none, next) = asked.due(&failed, |_| false, 0);
            assert_eq!(none, []);
            let (due, _) = asked.due(&failed, |_| false, next.unwrap());
            assert_eq!(due, failed);
            seconds.push(next.unwrap() / 1_000);
            asked.asked("a");
        }
        assert_eq!(seconds, [10, 20, 40, 80, 160]);
        // A new daemon counts the attempts that it sees.
        let failed = [attempt(2, "a", 0), attempt(1, "a", 0)];
        let fresh = Asked::default();
        assert_eq!(
            fresh.due(&failed, |_| false, 19_999),
            (Vec::new(), Some(20_000))
        );
        assert_eq!(ids(&fresh.due(&failed, |_| false, 20_000)), [2]);
        asked.retain(&[]);
        assert!(asked.0.is_empty());
    }

    #[test]
    fn a_sweep_has_a_maximum_of_calls() {
        let failed: Vec<FailedAttempt> = (0..200)
            .map(|id| attempt(id, &format!("d{id}"), 0))
            .collect();
        let due = Asked::default().due(&failed, |_| false, 100 * MINUTE);
        assert_eq!(ids(&due), (0..50).collect::<Vec<u64>>());
    }
}
