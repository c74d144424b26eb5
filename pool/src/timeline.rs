//! The phases that a runner passed through, each with the time at which it began.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::phase::PhaseKind;
use super::time::Timestamp;

/// Maximum number of entries. A runner passes through seven phases, and through some of them twice after
/// a failed mint or a restart of the daemon.
const MAX_ENTRIES: usize = 24;

/// The phases of one runner, oldest first. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline(Vec<(PhaseKind, Timestamp)>);

/// One phase of a runner that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseEntry {
    /// The phase.
    pub phase: PhaseKind,
    /// Milliseconds from the runner's start to the start of the phase.
    pub after_ms: u64,
}

impl Timeline {
    /// Returns the timeline of a runner that was found in a phase, or that starts in it.
    pub(super) fn new(phase: PhaseKind, at: Timestamp) -> Self {
        Self(vec![(phase, at)])
    }

    /// Returns the timeline with these entries, which the records held; `None` if there are none.
    #[must_use]
    pub fn from_entries(entries: Vec<(PhaseKind, Timestamp)>) -> Option<Self> {
        let mut entries = entries.into_iter();
        let (phase, at) = entries.next()?;
        let mut timeline = Self::new(phase, at);
        for (phase, at) in entries {
            timeline.enter(phase, at);
        }
        Some(timeline)
    }

    /// Adds a phase. Entering the same phase again changes nothing.
    ///
    /// A job may be older than the answer that told the phase before it. The times of the timeline never go
    /// back. A full timeline drops the phase before the new one.
    pub(super) fn enter(&mut self, phase: PhaseKind, at: Timestamp) {
        let Some((last, since)) = self.0.last().copied() else {
            return self.0.push((phase, at));
        };
        if last == phase {
            return;
        }
        if self.0.len() == MAX_ENTRIES {
            self.0.pop();
        }
        self.0.push((phase, at.max(since)));
    }

    /// Returns the phases and their starts, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (PhaseKind, Timestamp)> {
        self.0.iter().copied()
    }

    /// Returns the phases with their distances from the start of the runner.
    #[must_use]
    pub fn since(&self, start: Timestamp) -> Vec<PhaseEntry> {
        let entry = |(phase, at): (PhaseKind, Timestamp)| PhaseEntry {
            phase,
            after_ms: millis(at.since(start)),
        };
        self.iter().map(entry).collect()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn a_timeline_keeps_each_phase_once_and_never_goes_back() {
        let mut timeline = Timeline::new(PhaseKind::Booting, at(1_000));
        timeline.enter(PhaseKind::Spare, at(1_400));
        timeline.enter(PhaseKind::Spare, at(1_500));
        timeline.enter(PhaseKind::Registering, at(2_000));
        // The job reported its start before the answer to the mint was known.
        timeline.enter(PhaseKind::Busy, at(1_900));
        let entry = |phase, after_ms| PhaseEntry { phase, after_ms };
        assert_eq!(
            timeline.since(at(900)),
            [
                entry(PhaseKind::Booting, 100),
                entry(PhaseKind::Spare, 500),
                entry(PhaseKind::Registering, 1_100),
                entry(PhaseKind::Busy, 1_100),
            ]
        );
        let entries = timeline.iter().collect();
        assert_eq!(Timeline::from_entries(entries), Some(timeline));
        assert_eq!(Timeline::from_entries(Vec::new()), None);
    }

    #[test]
    fn a_timeline_is_bounded_and_shows_the_newest_phase() {
        let mut timeline = Timeline::new(PhaseKind::Booting, at(0));
        for step in 1_u64..1_000 {
            let is_even = step.is_multiple_of(2);
            let phase = if is_even {
                PhaseKind::Minting
            } else {
                PhaseKind::Spare
            };
            timeline.enter(phase, at(step));
        }
        timeline.enter(PhaseKind::Busy, at(2_000));
        assert_eq!(timeline.iter().count(), MAX_ENTRIES);
        assert_eq!(timeline.iter().last(), Some((PhaseKind::Busy, at(2_000))));
        assert_eq!(timeline.iter().next(), Some((PhaseKind::Booting, at(0))));
    }
}
