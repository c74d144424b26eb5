//! The result of a run, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::log::{Injected, Violation};
use super::outcomes::Outcomes;
use super::plan::FaultKind;

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    pub(super) seed: u64,
    pub(super) injected: BTreeMap<FaultKind, Injected>,
    pub(super) outcomes: Outcomes,
    pub(super) leaks: Vec<(&'static str, Vec<String>)>,
    /// Time from the last fault until the pools were whole; `None` if they never were.
    pub(super) settled: Option<Duration>,
    pub(super) violations: Vec<Violation>,
}

impl Report {
    /// Returns true if no invariant was violated.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }

    /// Returns one line per violation, with the seed and the time that reproduce it.
    #[must_use]
    pub fn violations(&self) -> String {
        let mut text = String::new();
        for Violation { at_s, story } in &self.violations {
            // Writing to a String cannot fail, here and below.
            writeln!(text, "seed {}, {at_s:.1} s: {story}", self.seed).ok();
        }
        text
    }

    /// Returns the report as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{:<26} {:>5} {:>7}\n", "fault", "hit", "missed");
        for (kind, Injected { hit, missed }) in &self.injected {
            writeln!(text, "{:<26} {hit:>5} {missed:>7}", kind.name()).ok();
        }
        let hits: usize = self.injected.values().map(|count| count.hit).sum();
        let kinds = self.injected.values().filter(|count| count.hit > 0).count();
        let all = FaultKind::all().count();
        writeln!(text, "{hits} faults of {kinds} kinds, out of {all} kinds\n").ok();
        let outcomes = &self.outcomes;
        for (outcome, count) in [
            ("accepted by GitHub", outcomes.accepted()),
            ("succeeded", outcomes.succeeded),
            ("failed as intended", outcomes.failed),
            ("failed, container killed", outcomes.killed),
            ("not finished", outcomes.open.len()),
            ("lost", outcomes.lost.len()),
            ("run twice", outcomes.twice.len()),
        ] {
            writeln!(text, "jobs {outcome:<26} {count:>5}").ok();
        }
        text.push('\n');
        for (kind, names) in &self.leaks {
            writeln!(text, "leaked {kind:<24} {:>5}", names.len()).ok();
        }
        match self.settled {
            Some(took) => writeln!(
                text,
                "\nsettled {:.1} s after the last fault",
                took.as_secs_f64()
            )
            .ok(),
            None => writeln!(text, "\nnever settled").ok(),
        };
        text.push_str(&self.violations());
        write!(text, "{} violations", self.violations.len()).ok();
        text
    }
}
