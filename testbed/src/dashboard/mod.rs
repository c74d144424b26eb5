//! The Grafana dashboard: what each panel shows, and the JSON that Grafana reads.
//!
//! - [`panels`]: the rows and panels, each with its queries
//! - [`model`]: Grafana's JSON of them

pub mod model;
pub mod panels;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::checks::tools::project;

/// The file that Grafana reads, in the repository.
pub const FILE: &str = "monitoring/dashboards/runner-controller.json";

/// Returns the text of the file.
#[must_use]
pub fn text() -> String {
    format!("{:#}\n", model::dashboard(panels::ROWS))
}

/// Returns the queries of all panels, as Grafana sends them for all hosts and pools.
pub fn queries(rows: &[panels::Row]) -> impl Iterator<Item = String> {
    let panels = rows.iter().flat_map(|row| row.panels);
    let queries = panels.flat_map(|panel| panel.queries);
    queries.map(|(query, _)| {
        query
            .replace("$instance", ".*")
            .replace("$pool", ".*")
            .replace("$__rate_interval", "1m")
    })
}

/// Writes the file. Returns its path.
pub fn write() -> Result<PathBuf> {
    let path = project().join(FILE);
    fs::write(&path, text()).with_context(|| format!("write {FILE}"))?;
    Ok(path)
}
