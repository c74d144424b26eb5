//! The events of slots in order of time, and the times between them.

use crate::journal::Entry;

/// A moment from a container's start to its end that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The daemon is about to call systemd.
    Starting,
    /// The unit is active, so its network is up, and the container has asked for its config.
    Spare,
    /// The daemon is about to ask GitHub for a config.
    Registering,
    /// The config was written to the container.
    Delivered,
    /// The runner's code runs.
    Code,
    /// The daemon has read the job-started line.
    JobStarted,
    /// The runner has exited.
    Exit,
    /// The daemon knows that the container is gone.
    Ended,
}

/// An event in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotEvent {
    /// Microseconds since 1970.
    pub(super) at_us: u64,
    /// The slot: `ci-2`.
    pub(super) slot: String,
    /// The moment that was reached.
    pub(super) moment: Moment,
}

/// The slots in which the later event of a pair may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaterIn {
    /// The same slot.
    SameSlot,
    /// Any other slot.
    AnotherSlot,
}

/// Beginnings of the daemon's messages after the slot's name.
const MESSAGES: &[(&str, Moment)] = &[
    ("starting a container", Moment::Starting),
    ("a spare is ready", Moment::Spare),
    ("registering a spare", Moment::Registering),
    ("delivered the JIT config", Moment::Delivered),
    ("job started", Moment::JobStarted),
    ("ended, ", Moment::Ended),
];

/// Returns the events that the daemon's journal entries report.
pub(super) fn of_daemon(entries: &[Entry]) -> Vec<SlotEvent> {
    let event = |entry: &Entry| {
        let slot = entry.get("SLOT");
        let text = entry
            .get("MESSAGE")
            .strip_prefix(slot)?
            .strip_prefix(": ")?;
        let (_, moment) = MESSAGES.iter().find(|(begin, _)| text.starts_with(begin))?;
        Some(SlotEvent {
            at_us: entry.at_us,
            slot: slot.to_owned(),
            moment: *moment,
        })
    };
    entries.iter().filter_map(event).collect()
}

/// Returns the milliseconds from each `from` to the first `to` after it. Leaves out a `from` that is followed by
/// another `from` in its slot before any `to`.
pub(super) fn gaps(events: &[SlotEvent], from: Moment, to: Moment, later_in: LaterIn) -> Vec<f64> {
    let mut events: Vec<&SlotEvent> = events.iter().collect();
    events.sort_by_key(|event| event.at_us);
    let gap = |(at, begin): (usize, &&SlotEvent)| {
        if begin.moment != from {
            return None;
        }
        let next = events.iter().skip(at + 1).find(|event| {
            let same = event.slot == begin.slot;
            let counts = event.moment == to && same == (later_in == LaterIn::SameSlot);
            counts || (event.moment == from && same)
        })?;
        (next.moment == to).then(|| millis(next.at_us - begin.at_us))
    };
    events.iter().enumerate().filter_map(gap).collect()
}

/// Converts microseconds to milliseconds.
pub(super) fn millis(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::binaries::workspace;

    fn event(at_us: u64, slot: &str, moment: Moment) -> SlotEvent {
        SlotEvent {
            at_us,
            slot: slot.into(),
            moment,
        }
    }

    #[test]
    fn gaps_are_measured_per_slot() {
        let events = [
            event(5000, "ci-1", Moment::Spare),
            event(1000, "ci-1", Moment::Starting),
            event(2000, "ci-2", Moment::Starting),
            event(9500, "ci-2", Moment::Spare),
            event(9600, "ci-2", Moment::Starting),
        ];
        let found = gaps(&events, Moment::Starting, Moment::Spare, LaterIn::SameSlot);
        assert_eq!(found, [4.0, 7.5]);
    }

    #[test]
    fn the_later_event_may_be_in_another_slot() {
        let events = [
            event(1000, "ci-1", Moment::Exit),
            event(1500, "ci-1", Moment::Code),
            event(3000, "ci-2", Moment::Code),
        ];
        assert_eq!(
            gaps(&events, Moment::Exit, Moment::Code, LaterIn::AnotherSlot),
            [2.0]
        );
    }

    /// A changed message would leave its figures without samples.
    #[test]
    fn the_daemon_still_writes_every_message_that_is_measured() {
        fn read(dir: &Path, into: &mut String) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    read(&path, into);
                } else {
                    into.push_str(&fs::read_to_string(&path).unwrap());
                }
            }
        }
        let mut source = String::new();
        read(&workspace().join("runner-controller/src"), &mut source);
        for (text, moment) in MESSAGES {
            let message = format!("}}: {text}");
            assert!(
                source.contains(&message),
                "no message of the daemon begins with {text:?}; adapt MESSAGES for {moment:?}"
            );
        }
    }
}
