//! The rows of the lists, their order, and the filter. Pure.

use std::cmp::Ordering;

use super::list::{Subject, View};
use crate::status::{Status, VerdictRecord};
use crate::view::{Ended, Occupation, failure, notices, server, span, state};

/// A row of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Its identity from one answer of the daemon to the next.
    pub(super) key: String,
    pub(super) subject: Subject,
    /// Its cells, as many as the header has.
    pub(super) cells: Vec<String>,
    /// True if something is wrong with the runner.
    pub(super) is_problem: bool,
    /// Times behind the cells with durations, by column.
    times: Vec<(usize, u64)>,
}

impl Row {
    /// Returns true if a cell contains the text, which is in lower case.
    pub(super) fn contains(&self, filter: &str) -> bool {
        let mut cells = self.cells.iter();
        filter.is_empty() || cells.any(|cell| cell.to_lowercase().contains(filter))
    }
}

/// Returns the header of a list.
pub(super) fn header(view: View) -> &'static [&'static str] {
    match view {
        View::Runners => &["RUNNER", "STATE", "FOR", "AGE", "JOB OR NAME"],
        View::Ended => &["ENDED", "VERDICT", "AGO", "JOB", "MEMORY", "EXIT"],
        View::Notices => &[],
    }
}

/// Order of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Order {
    /// Column by which it is sorted; `None` for the order of the document: pools and slots, or the newest first.
    pub(super) column: Option<usize>,
    pub(super) is_reversed: bool,
}

impl Order {
    /// Chooses the next column, and after the last one the order of the document.
    pub(super) fn next(&mut self, view: View) {
        let columns = header(view).len();
        let next = self.column.map_or(0, |column| column + 1);
        self.column = (next < columns).then_some(next);
    }

    /// Sorts rows. Equal ones keep their order.
    pub(super) fn sort(self, rows: &mut [Row]) {
        if let Some(column) = self.column {
            rows.sort_by(|a, b| compare(a, b, column));
        }
        if self.is_reversed {
            rows.reverse();
        }
    }
}

/// Compares two rows: durations by their length, the longest first, and other cells as text.
fn compare(a: &Row, b: &Row, column: usize) -> Ordering {
    let time = |row: &Row| {
        let mut times = row.times.iter();
        times.find(|(at, _)| *at == column).map(|(_, time)| *time)
    };
    if let (Some(a), Some(b)) = (time(a), time(b)) {
        return b.cmp(&a);
    }
    if column == 0 {
        return a.subject.slot.cmp(&b.subject.slot);
    }
    a.cells.get(column).cmp(&b.cells.get(column))
}

/// Returns a row for each runner that has a container.
pub(super) fn runner_rows(status: &Status) -> Vec<Row> {
    let mut rows = Vec::new();
    for pool in &status.pools {
        for runner in &pool.runners {
            let occupation = Occupation::of(runner, server(status, pool));
            rows.push(Row {
                key: runner.slot.to_string(),
                subject: Subject {
                    slot: runner.slot.clone(),
                    invocation: runner.invocation.clone(),
                },
                cells: vec![
                    runner.slot.to_string(),
                    state(runner),
                    span(runner.phase_ms),
                    span(runner.age_ms),
                    occupation.text,
                ],
                is_problem: runner.unreachable || runner.address_lost,
                times: vec![(2, runner.phase_ms), (3, runner.age_ms)],
            });
        }
    }
    rows
}

/// Returns a row for each runner that ended last.
pub(super) fn ended_rows(status: &Status) -> Vec<Row> {
    let row = |ended: &VerdictRecord| {
        let cells = Ended::of(ended, status.at_unix_ms);
        let ago = status.at_unix_ms.saturating_sub(ended.ended_unix_ms);
        Row {
            key: format!("{} {}", ended.slot, ended.ended_unix_ms),
            subject: Subject {
                slot: ended.slot.clone(),
                invocation: ended.invocation.clone(),
            },
            cells: vec![
                cells.slot,
                cells.verdict,
                cells.ago,
                cells.job,
                cells.memory,
                cells.exit,
            ],
            is_problem: failure(ended).is_some(),
            times: vec![(2, ago)],
        }
    };
    status.recent.iter().map(row).collect()
}

/// Returns the number of lines of the notices, before they are wrapped.
pub(super) fn notice_lines(status: &Status) -> usize {
    let scopes = status.scopes().len();
    notices(status).len() + if scopes > 1 { scopes } else { 0 }
}
