//! The figures as a table.

use std::fmt::Write as _;

/// A figure of a large host, beside that of a small one.
pub(super) struct Row {
    name: &'static str,
    small: Option<f64>,
    large: f64,
    /// The most that the figure should be.
    goal: Option<f64>,
}

impl Row {
    pub(super) fn new(name: &'static str, small: impl Into<Option<f64>>, large: f64) -> Self {
        let small = small.into();
        Self {
            name,
            small,
            large,
            goal: None,
        }
    }

    #[must_use]
    pub(super) fn at_most(self, goal: f64) -> Self {
        let goal = Some(goal);
        Self { goal, ..self }
    }

    /// Returns true unless the goal is missed.
    pub(super) fn is_good(&self) -> bool {
        self.goal.is_none_or(|goal| self.large <= goal)
    }
}

/// Returns the middle sample.
pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Returns a number with three significant digits.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

pub(super) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<47} {:>8} {:>8} {:>6}  {}\n",
        "", "small", "large", "ratio", "goal"
    );
    for row in rows {
        let small = row.small.map(number).unwrap_or_default();
        let ratio = row
            .small
            .map(|small| format!("{:.2}", row.large / small))
            .unwrap_or_default();
        let mark = if row.is_good() { '✓' } else { '✗' };
        let goal = row
            .goal
            .map(|goal| format!("{mark} at most {}", number(goal)))
            .unwrap_or_default();
        let large = number(row.large);
        writeln!(
            text,
            "{:<47} {small:>8} {large:>8} {ratio:>6}  {goal}",
            row.name
        )
        .unwrap();
    }
    text
}
