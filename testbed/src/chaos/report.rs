//! What a run came to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::book::Reckoning;
use super::ledger::{Dealt, Violation};
use super::plan::Kind;

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    pub(super) seed: u64,
    pub(super) dealt: BTreeMap<Kind, Dealt>,
    pub(super) book: Reckoning,
    pub(super) leaks: Vec<(&'static str, Vec<String>)>,
    /// How long the pools took to be whole again; none if they never were.
    pub(super) settled: Option<Duration>,
    pub(super) violations: Vec<Violation>,
}

impl Report {
    /// Whether nothing happened that must never be.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }

    /// What was violated when, for one who wants to see it again.
    #[must_use]
    pub fn violations(&self) -> String {
        let mut text = String::new();
        for Violation { at_s, what } in &self.violations {
            // Writing to a String cannot fail, here and below.
            writeln!(text, "seed {}, {at_s:.1} s: {what}", self.seed).ok();
        }
        text
    }

    /// As a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{:<26} {:>5} {:>7}\n", "fault", "hit", "missed");
        for (kind, Dealt { hit, missed }) in &self.dealt {
            writeln!(text, "{:<26} {hit:>5} {missed:>7}", kind.name()).ok();
        }
        let hits: usize = self.dealt.values().map(|dealt| dealt.hit).sum();
        let kinds = self.dealt.values().filter(|dealt| dealt.hit > 0).count();
        let all = Kind::all().count();
        writeln!(
            text,
            "{hits} faults of {kinds} kinds, of {all} that there are\n"
        )
        .ok();
        let book = &self.book;
        for (what, count) in [
            ("accepted", book.accepted()),
            ("done", book.done),
            ("failed by design", book.failed),
            ("failed, container killed", book.cut),
            ("not over", book.open.len()),
            ("lost", book.lost.len()),
            ("run twice", book.twice.len()),
        ] {
            writeln!(text, "jobs {what:<26} {count:>5}").ok();
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
