//! Findings of `doctor`, their count, and their text.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use crate::config::{HostFindings, Mistake};
use crate::terminal;

/// Weight of a finding, the heaviest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(super) enum Level {
    /// It keeps runners from their jobs, or endangers the host.
    Problem,
    /// It may become a problem.
    Warning,
    /// Not checked, with the reason.
    Skipped,
    /// Something to know.
    Note,
    /// In order.
    Good,
}

/// Repair that `--fix` can carry out. Each may be repeated and ends no job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fix {
    /// Install the host files and restart firewall and daemon, as `apply` does.
    Apply,
    /// Apply the kernel's settings of the host again.
    KernelSettings,
    /// Restart the owner of the firewall's table.
    Firewall,
    /// Let systemd read the units again.
    ReloadUnits,
    /// Sweep what ended runners left.
    Sweep,
}

impl Fix {
    /// Returns the question before the repair, which names its effect.
    pub(super) fn question(self) -> &'static str {
        match self {
            Self::Apply => {
                "Install the host files and restart firewall and daemon (`runner-controller apply`)?"
            }
            Self::KernelSettings => {
                "Apply the kernel settings of this host again (`systemctl restart systemd-sysctl`)?"
            }
            Self::Firewall => "Restart the owner of the runners' firewall?",
            Self::ReloadUnits => "Let systemd read the units again (`systemctl daemon-reload`)?",
            Self::Sweep => "Sweep what ended runners left on this host?",
        }
    }
}

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The checked thing in a word or two.
    pub(super) area: &'static str,
    pub(super) level: Level,
    /// The finding, with its cause.
    pub(super) text: String,
    /// The next step of the operator.
    pub(super) hint: Option<String>,
    /// The repair of `--fix`, if one is safe.
    pub(super) fix: Option<Fix>,
}

impl Finding {
    fn new(
        area: &'static str,
        level: Level,
        text: impl Into<String>,
        hint: Option<String>,
    ) -> Self {
        Self {
            area,
            level,
            text: text.into(),
            hint,
            fix: None,
        }
    }

    pub(super) fn problem(
        area: &'static str,
        text: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(area, Level::Problem, text, Some(hint.into()))
    }

    pub(super) fn warning(
        area: &'static str,
        text: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(area, Level::Warning, text, Some(hint.into()))
    }

    pub(super) fn skipped(area: &'static str, reason: impl Into<String>) -> Self {
        Self::new(area, Level::Skipped, reason, None)
    }

    pub(super) fn note(area: &'static str, text: impl Into<String>) -> Self {
        Self::new(area, Level::Note, text, None)
    }

    pub(super) fn good(area: &'static str, text: impl Into<String>) -> Self {
        Self::new(area, Level::Good, text, None)
    }

    pub(super) fn without_hint(self) -> Self {
        Self { hint: None, ..self }
    }

    pub(super) fn fixed_by(self, fix: Fix) -> Self {
        Self {
            fix: Some(fix),
            ..self
        }
    }
}

/// Returns the findings of the check that `check-config --host` shares.
pub(super) fn of_host_check(area: &'static str, found: HostFindings) -> Vec<Finding> {
    let HostFindings { mistakes, notes } = found;
    let mistakes = mistakes
        .into_iter()
        .map(|mistake| of_mistake(area, mistake));
    let notes = notes.into_iter().map(|note| Finding::note(area, note));
    mistakes.chain(notes).collect()
}

pub(super) fn of_mistake(area: &'static str, mistake: Mistake) -> Finding {
    let Mistake { key, wrong, write } = mistake;
    Finding::problem(area, format!("{key}: {wrong}"), write)
}

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    /// The findings, the heaviest first.
    pub(super) findings: Vec<Finding>,
    problems: usize,
    warnings: usize,
    skipped: usize,
    /// True if the daemon answered.
    daemon_answers: bool,
}

/// Exit status for a host with a problem.
const PROBLEM: u8 = 1;
/// Exit status for a host whose daemon does not answer.
const NO_DAEMON: u8 = 2;

impl Report {
    /// Returns the report on these findings. A cause that two checks found is told once, by the first.
    pub(super) fn new(found: Vec<Finding>, daemon_answers: bool) -> Self {
        let mut findings: Vec<Finding> = Vec::new();
        for finding in found {
            let told = |earlier: &Finding| {
                earlier.level == finding.level && finding.text.contains(&earlier.text)
            };
            if !findings.iter().any(told) {
                findings.push(finding);
            }
        }
        findings.sort_by_key(|finding| finding.level);
        let count = |level| findings.iter().filter(|found| found.level == level).count();
        Self {
            problems: count(Level::Problem),
            warnings: count(Level::Warning),
            skipped: count(Level::Skipped),
            findings,
            daemon_answers,
        }
    }

    /// Returns the exit status, as that of `status`: 0 without a problem, 1 with one, 2 without a daemon.
    pub(super) fn exit_status(&self) -> u8 {
        match (self.daemon_answers, self.problems) {
            (false, _) => NO_DAEMON,
            (true, 0) => 0,
            (true, _) => PROBLEM,
        }
    }

    /// Returns the repairs that the findings name, each once. `Apply` includes the others but the sweep.
    pub(super) fn fixes(&self) -> Vec<Fix> {
        let all: BTreeSet<Fix> = self.findings.iter().filter_map(|found| found.fix).collect();
        let applies = all.contains(&Fix::Apply);
        let is_own = |fix: &Fix| !applies || matches!(fix, Fix::Apply | Fix::Sweep);
        all.into_iter().filter(is_own).collect()
    }

    /// Returns the report for a terminal.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for Finding {
            area,
            level,
            text: found,
            hint,
            ..
        } in &self.findings
        {
            let level: &str = level.into();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{level:<8} {area}: {}", terminal::plain(found));
            if let Some(hint) = hint {
                let _ = writeln!(text, "         fix: {}", terminal::plain(hint));
            }
        }
        text + &self.count() + "\n"
    }

    fn count(&self) -> String {
        let words = |count: usize, one: &str, several: &str| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {several}"),
        };
        let mut line = format!(
            "{}: {}, {}, {} not checked",
            words(self.findings.len(), "finding", "findings"),
            words(self.problems, "problem", "problems"),
            words(self.warnings, "warning", "warnings"),
            self.skipped
        );
        if !self.fixes().is_empty() {
            line += "; `runner-controller doctor --fix` offers repairs";
        }
        line
    }
}

#[cfg(test)]
mod tests;
