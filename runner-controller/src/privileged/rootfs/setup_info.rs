//! The text in the log of every job that says where it ran.
//!
//! GitHub's listener shows the groups of `.setup_info` in the step "Set up job".

use std::path::Path;

use serde_json::json;

use crate::config::{Egress, Image, Layer, Place, PoolConfig};

/// Name of the file in the listener's directory.
pub(super) const FILE: &str = ".setup_info";

/// Returns the contents of the file.
pub(super) fn text(place: Place<'_>) -> String {
    let pool = place.pool;
    let machine = [
        format!("Host: {}", place.config.host),
        format!("Pool: {}", pool.name),
        format!("Slot: {}", place.id()),
        format!("Image: {}", image(&pool.image)),
        format!("Started by runner-controller {}", env!("CARGO_PKG_VERSION")),
    ];
    let limits = &pool.limits;
    let cpu = limits.cpu.map(|cpu| format!("CPU: {}", cpu.quota()));
    let (size, kind) = match &pool.layer {
        Layer::Tmpfs { size } => (size, "in memory"),
        Layer::Disk { size } => (size, "on disk"),
    };
    let timeout = humantime::format_duration(pool.timeouts.job);
    let rest = [
        format!("Tasks: {}", limits.tasks),
        format!("Writable layer: {size}, {kind}"),
        format!("Network: {}", network(pool)),
        format!(
            "Timeout: {timeout}. A job that runs longer receives a shutdown signal and fails (timeouts.job)"
        ),
    ];
    let bounds: Vec<String> = std::iter::once(format!("Memory: {}", limits.memory))
        .chain(cpu)
        .chain(rest)
        .collect();
    let groups = json!([
        { "group": "Runner host", "detail": machine.join("\n") },
        { "group": "Limits of this runner", "detail": bounds.join("\n") },
    ]);
    groups.to_string()
}

/// Returns the last part of the image's path, because the log may be public.
fn image(image: &Image) -> String {
    let path: &Path = match image {
        Image::Directory { path, .. } => path,
        Image::Nixos { system, .. } => system,
    };
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn network(pool: &PoolConfig) -> &'static str {
    match (pool.egress, pool.allow.is_empty()) {
        (Egress::Internet, true) => "the internet",
        (Egress::Internet, false) => "the internet, and destinations that the pool allows",
        (Egress::Listed, _) => "DNS, and destinations that the pool allows",
        (Egress::None, true) => "none",
        (Egress::None, false) => "destinations that the pool allows, without DNS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    #[test]
    fn a_jobs_log_says_where_it_ran_and_which_timeout_ends_it() {
        let config = testing::config();
        let place = config.place(&"ci-3".parse().unwrap()).unwrap();
        let groups: serde_json::Value = serde_json::from_str(&text(place)).unwrap();
        let detail = |at: usize| groups[at]["detail"].as_str().unwrap().to_owned();
        for line in ["Host: box", "Pool: ci", "Slot: ci-3"] {
            assert!(detail(0).lines().any(|found| found == line), "{groups:#}");
        }
        let timeout = humantime::format_duration(config.pools[0].timeouts.job);
        for part in [
            "Memory: ",
            "Tasks: ",
            "in memory",
            &format!("Timeout: {timeout}."),
        ] {
            assert!(detail(1).contains(part), "{part} in {groups:#}");
        }
        assert!(!text(place).contains('/'), "a path of the host: {groups:#}");
    }
}
