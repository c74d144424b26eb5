//! Figures with their samples, as a table and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

/// Who told the times of a figure. All of them are one clock, the kernel's `CLOCK_REALTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Teller {
    /// systemd's messages in the journal.
    Systemd,
    /// The daemon's messages in the journal.
    Daemon,
    /// The daemon's messages, and stamps that the runner's program sends.
    DaemonAndRunner,
    /// Stamps that the runner's program sends.
    Runner,
    /// The stand-in's own count of requests.
    StandIn,
    /// The kernel's account of the daemon's process and cgroup.
    Kernel,
    /// The size of a file.
    File,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) told_by: Teller,
    /// The median of the samples.
    pub(super) value: f64,
    /// At most this; absent where the figure is only there to be compared with.
    pub(super) goal: Option<f64>,
    /// Where the goal comes from.
    pub(super) goal_is: String,
    /// Whether it is reached.
    pub(super) reached: Option<bool>,
    pub(super) samples: Vec<f64>,
}

impl Figure {
    /// A figure to compare with.
    pub(super) fn plain(
        name: &'static str,
        unit: &'static str,
        told_by: Teller,
        samples: Vec<f64>,
    ) -> Self {
        Self {
            name,
            unit,
            told_by,
            value: median(&samples),
            goal: None,
            goal_is: String::new(),
            reached: None,
            samples,
        }
    }

    /// With a goal: at most `goal`, which is `goal_is`.
    #[must_use]
    pub(super) fn at_most(mut self, goal: f64, goal_is: impl Into<String>) -> Self {
        self.goal = Some(goal);
        self.goal_is = goal_is.into();
        self.reached = Some(!self.samples.is_empty() && self.value <= goal);
        self
    }
}

/// The middle one, or the mean of the two in the middle; not a number if there are none.
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

/// For people.
pub(super) fn table(figures: &[Figure]) -> String {
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
                let source = &figure.goal_is;
                format!("{mark} at most {} {unit}{source}", number(goal))
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

/// Three digits that say something.
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
    fn a_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn what_was_not_measured_reaches_no_goal() {
        let none = Figure::plain("x", "ms", Teller::Daemon, vec![]).at_most(5.0, "");
        assert_eq!(none.reached, Some(false));
        let good = Figure::plain("x", "ms", Teller::Daemon, vec![4.0]).at_most(5.0, "");
        assert_eq!(good.reached, Some(true));
        assert!(table(&[good]).contains("✓ at most 5.00 ms"));
    }
}
