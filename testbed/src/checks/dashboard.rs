//! The check of the Grafana dashboard: its file is the one that is written, and Prometheus can parse its queries.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};

use super::alerts::{METRICS, metrics_in};
use super::tools::{Tools, project};
use crate::dashboard::{FILE, panels, queries, text};

/// Fails if the file is not what `testbed dashboard` writes, if Prometheus refuses a query, and on a metric that the
/// program does not have.
pub fn dashboard_is_sound(tools: &Tools) -> Result<()> {
    let read = |path: &str| fs::read_to_string(project().join(path)).context(path.to_owned());
    ensure!(
        read(FILE)? == text(),
        "{FILE} is out of date: run `cargo run -p testbed -- dashboard`"
    );
    let metrics = read(METRICS)?;
    for query in queries(panels::ROWS) {
        tools
            .run(&["promtool", "promql", "--experimental", "format", &query])
            .with_context(|| query.clone())?;
        let unknown: BTreeSet<&str> = metrics_in(&query)
            .map(of_family)
            .filter(|metric| !metrics.contains(&format!("| `{metric}` |")))
            .collect();
        ensure!(unknown.is_empty(), "{METRICS} lacks {unknown:?}");
    }
    Ok(())
}

/// Returns the metric of a histogram's series.
fn of_family(series: &str) -> &str {
    ["_bucket", "_sum", "_count"]
        .into_iter()
        .find_map(|part| series.strip_suffix(part))
        .unwrap_or(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_histogram_belong_to_its_metric() {
        assert_eq!(
            of_family("runner_controller_boot_seconds_bucket"),
            "runner_controller_boot_seconds"
        );
        assert_eq!(
            of_family("runner_controller_pool_max"),
            "runner_controller_pool_max"
        );
    }
}
