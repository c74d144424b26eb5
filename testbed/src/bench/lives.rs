//! What happened to slots, in order, and the times between.

use crate::journal::Entry;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The daemon is about to call systemd.
    Starting,
    /// The unit is active, so the network is up, and the container has asked for its config.
    Spare,
    /// The daemon is about to ask GitHub for a config.
    Registering,
    /// The config was written to the container.
    Delivered,
    /// The runner's code runs.
    Code,
    /// The daemon has read the job-started line.
    JobStarted,
    /// The runner has ended.
    Exit,
    /// The daemon knows that the container is gone.
    Ended,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Microseconds since 1970.
    pub(super) at_us: u64,
    /// The slot.
    pub(super) slot: String,
    /// What happened.
    pub(super) kind: Kind,
}

/// Which later event counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum In {
    /// One in the same slot.
    SameSlot,
    /// One in another slot.
    AnotherSlot,
}

/// How the daemon's messages go on after the slot's name.
const MESSAGES: &[(&str, Kind)] = &[
    ("starting a container", Kind::Starting),
    ("a spare is ready", Kind::Spare),
    ("registering a spare", Kind::Registering),
    ("a config was delivered", Kind::Delivered),
    ("a job says that it started", Kind::JobStarted),
    ("ended, ", Kind::Ended),
];

/// What the daemon said.
pub(super) fn of_daemon(entries: &[Entry]) -> Vec<Event> {
    let event = |entry: &Entry| {
        let slot = entry.get("SLOT");
        let text = entry
            .get("MESSAGE")
            .strip_prefix(slot)?
            .strip_prefix(": ")?;
        let (_, kind) = MESSAGES.iter().find(|(begin, _)| text.starts_with(begin))?;
        Some(Event {
            at_us: entry.at_us,
            slot: slot.to_owned(),
            kind: *kind,
        })
    };
    entries.iter().filter_map(event).collect()
}

/// Milliseconds from each `from` to the first `to` behind it. A `from` that is followed by another
/// one in its slot before any `to` was never answered, and is left out.
pub(super) fn gaps(events: &[Event], from: Kind, to: Kind, place: In) -> Vec<f64> {
    let mut events: Vec<&Event> = events.iter().collect();
    events.sort_by_key(|event| event.at_us);
    let gap = |(at, begin): (usize, &&Event)| {
        if begin.kind != from {
            return None;
        }
        let next = events.iter().skip(at + 1).find(|event| {
            let same = event.slot == begin.slot;
            let counts = event.kind == to && same == (place == In::SameSlot);
            counts || (event.kind == from && same)
        })?;
        (next.kind == to).then(|| millis(next.at_us - begin.at_us))
    };
    events.iter().enumerate().filter_map(gap).collect()
}

/// Microseconds as milliseconds.
pub(super) fn millis(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_us: u64, slot: &str, kind: Kind) -> Event {
        Event {
            at_us,
            slot: slot.into(),
            kind,
        }
    }

    #[test]
    fn gaps_are_measured_slot_by_slot() {
        let events = [
            event(5000, "ci-1", Kind::Spare),
            event(1000, "ci-1", Kind::Starting),
            event(2000, "ci-2", Kind::Starting),
            event(9500, "ci-2", Kind::Spare),
            event(9600, "ci-2", Kind::Starting),
        ];
        let found = gaps(&events, Kind::Starting, Kind::Spare, In::SameSlot);
        assert_eq!(found, [4.0, 7.5]);
    }

    #[test]
    fn the_next_runner_is_another_slots() {
        let events = [
            event(1000, "ci-1", Kind::Exit),
            event(1500, "ci-1", Kind::Code),
            event(3000, "ci-2", Kind::Code),
        ];
        assert_eq!(
            gaps(&events, Kind::Exit, Kind::Code, In::AnotherSlot),
            [2.0]
        );
    }
}
