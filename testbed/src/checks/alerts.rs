//! The check of alert rules: Prometheus accepts them, each has tests and a page, and its metrics exist.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};

use super::tools::{Tools, project};

const RULES: &str = "monitoring/alerts.yml";
const TESTS: &str = "monitoring/alerts.test.yml";
const PAGES: &str = "docs/runbooks";
pub(super) const METRICS: &str = "docs/metrics.md";
const PREFIX: &str = "runner_controller_";

/// Fails on a rule that Prometheus refuses, on one without a test for both outcomes, without a page, or with a
/// metric that the program does not have.
pub fn alerts_are_sound(tools: &Tools) -> Result<()> {
    tools.run(&["promtool", "check", "rules", RULES])?;
    tools.run(&["promtool", "test", "rules", TESTS])?;
    let read = |path: &str| fs::read_to_string(project().join(path)).context(path.to_owned());
    let (rules, tests, metrics) = (read(RULES)?, read(TESTS)?, read(METRICS)?);
    let alerts = values(&rules, "- alert: ");
    ensure!(!alerts.is_empty(), "{RULES} has no alert");
    for (alert, page) in alerts.iter().zip(values(&rules, "runbook: ")) {
        ensure!(
            page.starts_with(PAGES) && read(page)?.starts_with(&format!("# {alert}\n")),
            "{page} is not the page of {alert}"
        );
        for outcome in ["fires", "does not fire"] {
            let test = format!("- name: {alert} {outcome}\n");
            ensure!(tests.contains(&test), "{TESTS} lacks {test}");
        }
    }
    let files = fs::read_dir(project().join(PAGES))?.count();
    ensure!(
        files == alerts.len() + 1,
        "{PAGES} has {files} files for {} alerts and a list",
        alerts.len()
    );
    let unknown: BTreeSet<&str> = metrics_in(&rules)
        .filter(|metric| !metrics.contains(&format!("| `{metric}` |")))
        .collect();
    ensure!(unknown.is_empty(), "{METRICS} lacks {unknown:?}");
    Ok(())
}

/// Returns what follows a key, in each line that begins with it.
fn values<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix(key))
        .collect()
}

/// Returns the names of our metrics in a text, those of histograms with the ending of the series.
pub(crate) fn metrics_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with(PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_rules() {
        let rules = "- alert: A\n  expr: rate(runner_controller_x_total[1h]) > on (pool) runner_controller_y\n";
        assert_eq!(values(rules, "- alert: "), ["A"]);
        let metrics: Vec<&str> = metrics_in(rules).collect();
        assert_eq!(
            metrics,
            ["runner_controller_x_total", "runner_controller_y"]
        );
    }
}
