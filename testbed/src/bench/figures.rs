//! Figures with their samples, as a table and as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use serde::Serialize;

use crate::bed::note;

/// The source of a figure. All times come from one clock, the kernel's `CLOCK_REALTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Source {
    /// systemd's messages in the journal.
    Systemd,
    /// The daemon's messages in the journal.
    Daemon,
    /// The daemon's messages, and stamps that the runner's program sends.
    DaemonAndRunner,
    /// Stamps that the runner's program sends.
    Runner,
    /// The stand-in's count of requests.
    StandIn,
    /// The kernel's accounting of the daemon's process and cgroup.
    Kernel,
    /// The size of a file.
    File,
    /// The stand-in's times, and the daemon's messages.
    StandInAndDaemon,
    /// The stand-in's times, and stamps that the runner's program sends.
    StandInAndRunner,
    /// The clock of a sender in GitHub's place.
    Sender,
    /// The clock of a program that runs the core alone.
    Program,
    /// The reports of iperf3, and the time of a program that opens connections.
    Network,
}

/// Side of a goal on which a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum GoalSide {
    AtMost,
    AtLeast,
}

/// A measured figure.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) source: Source,
    /// The median of the samples.
    pub(super) value: f64,
    /// Bound that the figure should keep to; `None` for a figure that others are compared with.
    pub(super) goal: Option<f64>,
    /// Side of the bound on which the figure should be.
    pub(super) goal_side: GoalSide,
    /// Explanation of the goal.
    pub(super) goal_note: String,
    /// True if the goal is reached.
    pub(super) reached: Option<bool>,
    pub(super) samples: Vec<f64>,
}

impl Figure {
    /// Returns a figure without a goal.
    pub(super) fn plain(
        name: &'static str,
        unit: &'static str,
        source: Source,
        samples: Vec<f64>,
    ) -> Self {
        Self {
            name,
            unit,
            source,
            value: median(&samples),
            goal: None,
            goal_side: GoalSide::AtMost,
            goal_note: String::new(),
            reached: None,
            samples,
        }
    }

    /// Sets the goal: at least `goal`, explained by `goal_note`.
    #[must_use]
    pub(super) fn at_least(mut self, goal: f64, goal_note: impl Into<String>) -> Self {
        self.goal = Some(goal);
        self.goal_side = GoalSide::AtLeast;
        self.goal_note = goal_note.into();
        self.reached = Some(!self.samples.is_empty() && self.value >= goal);
        self
    }

    /// Sets the goal: at most `goal`, explained by `goal_note`.
    #[must_use]
    pub(super) fn at_most(mut self, goal: f64, goal_note: impl Into<String>) -> Self {
        self.goal = Some(goal);
        self.goal_note = goal_note.into();
        self.reached = Some(!self.samples.is_empty() && self.value <= goal);
        self
    }
}

/// Returns the middle sample, or the mean of the two in the middle; NaN without samples.
pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Shows the figures and an explanation of them, and writes them as JSON to `path` with the facts about the run; true if
/// all goals are reached.
pub(super) fn report(
    figures: &[Figure],
    about: &str,
    path: Option<&Path>,
    facts: impl FnOnce() -> Result<Value>,
) -> Result<bool> {
    stdio::progress(format_args!("{}", table(figures)));
    if !about.is_empty() {
        stdio::progress(format_args!("{about}"));
    }
    if let Some(path) = path {
        let mut document = facts()?;
        document["figures"] = json!(figures);
        fs::write(path, serde_json::to_string_pretty(&document)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        note(&format!("figures and samples are in {}", path.display()));
    }
    Ok(figures.iter().all(|figure| figure.reached != Some(false)))
}

/// Formats the figures as a table.
fn table(figures: &[Figure]) -> String {
    let mut text = format!(
        "{:<47} {:>4} {:>9} {:>9} {:>9}  {}\n",
        "", "n", "median", "least", "most", "goal"
    );
    for figure in figures {
        let Figure {
            name,
            unit,
            value,
            samples,
            ..
        } = figure;
        let least = samples.iter().copied().fold(f64::NAN, f64::min);
        let most = samples.iter().copied().fold(f64::NAN, f64::max);
        let goal = match (figure.goal, figure.reached) {
            (Some(goal), Some(reached)) => {
                let mark = if reached { '✓' } else { '✗' };
                let note = &figure.goal_note;
                let side = match figure.goal_side {
                    GoalSide::AtMost => "at most",
                    GoalSide::AtLeast => "at least",
                };
                format!("{mark} {side} {} {unit}{note}", number(goal))
            }
            _ => String::new(),
        };
        // Writing to a String cannot fail.
        writeln!(
            text,
            "{:<47} {:>4} {:>9} {:>9} {:>9}  {goal}",
            format!("{name}, {unit}"),
            samples.len(),
            number(*value),
            number(least),
            number(most),
        )
        .ok();
    }
    text
}

/// Formats a number with three significant digits.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_sample() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_goal_has_a_side() {
        let figure = |goal: fn(Figure) -> Figure| {
            let figure = goal(Figure::plain("x", "jobs", Source::Daemon, vec![150.0]));
            (figure.reached, table(&[figure]))
        };
        let (reached, text) = figure(|figure| figure.at_least(160.0, ""));
        assert!(
            reached == Some(false) && text.contains("✗ at least 160 jobs"),
            "{text}"
        );
        let (reached, text) = figure(|figure| figure.at_least(140.0, ""));
        assert!(
            reached == Some(true) && text.contains("✓ at least 140 jobs"),
            "{text}"
        );
    }

    #[test]
    fn a_figure_without_samples_misses_its_goal() {
        let none = Figure::plain("x", "ms", Source::Daemon, vec![]).at_most(5.0, "");
        assert_eq!(none.reached, Some(false));
        let good = Figure::plain("x", "ms", Source::Daemon, vec![4.0]).at_most(5.0, "");
        assert_eq!(good.reached, Some(true));
        assert!(table(&[good]).contains("✓ at most 5.00 ms"));
    }
}
