//! Agreement between the documents and the program: keys, the example configuration, verdicts and states.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps fails with the line it stands on; clippy.toml knows only #[test] functions"
)]

use std::path::Path;

use runner_controller::pool::{JobResult, PhaseKind, Verdict};
use runner_controller::{config, guest};
use serde_json::Value;

const CONFIGURATION: &str = include_str!("../../docs/configuration.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
const OTHER_HOSTS: &str = include_str!("../../docs/other-hosts.md");
/// Settings with every key that has an option in Nix, among other things.
const GOLDEN: &str = include_str!("../../nix/golden/runner-01.json");

/// Collects the paths of all values of a table.
fn keys(table: &Value, prefix: &str, found: &mut Vec<String>) {
    for (key, value) in table.as_object().unwrap() {
        let path = format!("{prefix}{key}");
        if value.is_object() {
            keys(value, &format!("{path}."), found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn the_configuration_page_names_every_key() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let mut found = Vec::new();
    keys(&golden["everything"], "", &mut found);
    assert!(found.len() > 40, "{found:?}");
    let settings = &golden["scopes"];
    keys(&settings["pools"]["ci"], "", &mut found);
    keys(&settings["scopes"]["widgets"], "github.", &mut found);
    for key in found {
        let key = key.strip_prefix("pools.ci.").unwrap_or(&key);
        let named = CONFIGURATION.contains(&format!("`{key}`"));
        assert!(named, "docs/configuration.md does not name {key}");
    }
}

#[test]
fn the_example_configuration_is_valid() {
    let (_, rest) = OTHER_HOSTS.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let config = config::parse(Path::new("example"), example)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(config.pools.len(), 1);
}

#[test]
fn the_operations_page_explains_every_verdict_result_and_state() {
    let names = Verdict::ALL
        .iter()
        .map(ToString::to_string)
        .chain(JobResult::ALL.iter().map(ToString::to_string))
        .chain(PhaseKind::ALL.iter().map(ToString::to_string));
    for name in names {
        let row = OPERATIONS.lines().any(|line| {
            line.strip_prefix("| ")
                .and_then(|row| row.split('|').next())
                .is_some_and(|cell| cell.contains(&format!("`{name}`")))
        });
        assert!(row, "docs/operations.md has no row for {name}");
    }
}

#[test]
fn the_operations_page_has_a_remedy_for_every_failure_and_for_no_other_verdict() {
    for verdict in Verdict::ALL {
        let cell = format!("`{verdict}`");
        let row = OPERATIONS.lines().find_map(|line| {
            let cells: Vec<&str> = line.split(" | ").collect();
            (cells.len() == 3 && cells[0].contains(&cell)).then(|| cells[2].to_owned())
        });
        let remedy = row.unwrap_or_default();
        let remedy = remedy.trim_end_matches('|').trim();
        assert_eq!(
            remedy.is_empty(),
            !verdict.is_failure(),
            "{verdict}: {remedy:?}"
        );
    }
}

#[test]
fn the_documented_image_has_the_packages_that_the_runner_needs() {
    let mut lines = OTHER_HOSTS.lines();
    let list = lines.find_map(|line| line.trim().strip_prefix("--include="));
    let list = list.unwrap().trim_end_matches(['\\', ' ']);
    let packages: Vec<&str> = list.split(',').collect();
    for package in guest::NEEDED_PACKAGES
        .iter()
        .chain(&guest::ADVISED_PACKAGES)
    {
        assert!(packages.contains(package), "{package}");
    }
}
