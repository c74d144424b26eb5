//! Checks of scripts, the justfile, Nix files and secrets.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::tools::{self, Tools, project};
use super::tracked;

/// Recipes that an operator's habits and our documents rest on.
const RECIPES: &[&str] = &[
    "agenix-edit",
    "agenix-rekey",
    "apply",
    "apply-all",
    "apply-runner-01",
    "apply-runner-02",
    "bootstrap",
    "bootstrap-runner-01",
    "bootstrap-runner-02",
    "build",
    "build-runner-01",
    "build-runner-02",
    "check",
    "demo",
    "fmt",
    "logs",
    "logs-runner-01",
    "logs-runner-02",
    "rollback",
    "rollback-runner-01",
    "rollback-runner-02",
    "set-token",
    "set-token-runner-01",
    "set-token-runner-02",
    "status-all",
    "storage-all",
    "test",
];

pub(crate) fn has_shebang(name: &str) -> bool {
    fs::read(project().join(name)).is_ok_and(|bytes| {
        bytes.starts_with(b"#!/bin/sh")
            || bytes.starts_with(b"#!/bin/bash")
            || bytes.starts_with(b"#!/usr/bin/env bash")
    })
}

/// `ShellCheck` finds nothing in any script.
pub fn scripts_are_sound(tools: &Tools) -> Result<()> {
    let scripts = tracked(has_shebang)?;
    ensure!(
        scripts.iter().any(|name| name == "scripts/fleet.sh"),
        "no scripts/fleet.sh among {scripts:?}"
    );
    let mut argv = vec!["shellcheck"];
    argv.extend(scripts.iter().map(String::as_str));
    tools.run(&argv).map(drop)
}

/// Every recipe is there, says what it does, and can be run as far as just can tell.
pub fn the_justfile_is_sound(tools: &Tools) -> Result<()> {
    tools.run(&["just", "--unstable", "--fmt", "--check"])?;
    tools.run(&["just", "--evaluate"])?;
    let dump: Value =
        serde_json::from_str(&tools.run(&["just", "--dump", "--dump-format=json"])?)?;
    let recipes = dump["recipes"].as_object().context("no recipes")?;
    let names: BTreeSet<&str> = recipes.keys().map(String::as_str).collect();
    let missing: Vec<_> = RECIPES
        .iter()
        .filter(|name| !names.contains(*name))
        .collect();
    ensure!(missing.is_empty(), "no recipe {missing:?}");
    let list = tools.run(&["just", "--list"])?;
    for (name, recipe) in recipes {
        ensure!(
            recipe["doc"].as_str().is_some_and(|doc| !doc.is_empty()),
            "recipe {name} does not say what it does"
        );
        ensure!(list.contains(name), "{name} is not listed");
        let required = recipe["parameters"].as_array().map_or(0, |parameters| {
            parameters
                .iter()
                .filter(|one| one["kind"] == "singular" && one["default"].is_null())
                .count()
        });
        let mut argv = vec!["just", "--dry-run", name];
        argv.extend(std::iter::repeat_n("IP=192.0.2.1", required));
        tools.run(&argv)?;
    }
    // From any directory below.
    tools
        .run(&["sh", "-c", "cd runner-controller/src && just --summary"])
        .map(drop)
}

/// Hosts that have an address.
fn hosts() -> Result<Vec<String>> {
    let text = fs::read_to_string(project().join("hosts/addresses.json"))
        .context("hosts/addresses.json")?;
    let table: serde_json::Map<String, Value> = serde_json::from_str(&text)?;
    ensure!(
        table.values().all(Value::is_string),
        "hosts/addresses.json: an address is a text"
    );
    Ok(table.into_iter().map(|(name, _)| name).collect())
}

/// Every host has an address that scripts/fleet.sh finds, and every address a host.
pub fn every_host_has_an_address(tools: &Tools) -> Result<()> {
    let listed: BTreeSet<String> = tools
        .run(&["bash", "scripts/fleet.sh", "hosts"])?
        .lines()
        .map(str::to_owned)
        .collect();
    let addressed: BTreeSet<String> = hosts()?.into_iter().collect();
    ensure!(
        listed == addressed,
        "fleet.sh reads {listed:?} from hosts/addresses.json, which has {addressed:?}; one line each"
    );
    let mut described = BTreeSet::new();
    for entry in fs::read_dir(project().join("hosts"))? {
        let entry = entry?;
        if entry.path().join("default.nix").is_file() {
            described.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    ensure!(
        described.is_empty() || described == addressed,
        "directories of hosts/ are {described:?}, and hosts/addresses.json has {addressed:?}"
    );
    Ok(())
}

/// Every Nix file parses, and lies as an editor that keeps to nixfmt would leave it.
pub fn nix_files_parse(tools: &Tools) -> Result<()> {
    let files = nix_files()?;
    ensure!(!files.is_empty(), "git knows no Nix file");
    let mut argv = vec!["nix-instantiate", "--store", "dummy://", "--parse"];
    argv.extend(files.iter().map(String::as_str));
    tools.run(&argv)?;
    // nixfmt itself is in no registry that this reaches; `nix flake check` runs it.
    let mut wrong = Vec::new();
    for file in &files {
        let text = fs::read_to_string(project().join(file))?;
        wrong.extend(untidy(&text).map(|what| format!("{file}:{what}")));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The first thing in a text that every formatter would change.
fn untidy(text: &str) -> Option<String> {
    if !text.ends_with('\n') || text.ends_with("\n\n") {
        return Some(" ends with one newline".into());
    }
    text.lines().zip(1..).find_map(|(line, number)| {
        let what = if line.contains('\t') {
            "a tab"
        } else if line.ends_with(' ') {
            "a space at its end"
        } else {
            return None;
        };
        Some(format!("{number}: {what}"))
    })
}

/// Evaluates a file with Nix and returns the value as JSON.
fn evaluate(tools: &Tools, file: &str) -> Result<Value> {
    let said = tools.run(&[
        "nix-instantiate",
        "--store",
        "dummy://",
        "--eval",
        "--strict",
        "--json",
        file,
    ])?;
    serde_json::from_str(&said).with_context(|| file.to_owned())
}

/// The module's defaults are still those of the golden file, which only nixpkgs can write.
pub fn the_golden_file_is_current(tools: &Tools) -> Result<()> {
    const GOLDEN: &str = "nix/golden/runner-01.json";
    let golden: Value = serde_json::from_str(&fs::read_to_string(project().join(GOLDEN))?)?;
    let now = evaluate(tools, "testbed/nix/defaults.nix")?;
    ensure!(
        now.is_object() && now == golden["defaults"],
        "the module gives {now:#}\nand {GOLDEN} has {:#}\n\
         if the module is right: nix eval --json .#lib.golden | jq . > {GOLDEN}, or edit it alike",
        golden["defaults"]
    );
    Ok(())
}

/// Checks that each secret is encrypted for at least one key, and that none is in plain text.
pub fn secrets_are_secret(tools: &Tools) -> Result<()> {
    tools.run(&["bash", "secrets/check.sh"])?;
    let rules = evaluate(tools, "secrets/secrets.nix")?;
    let rules = rules.as_object().context("secrets.nix has no rules")?;
    for (name, rule) in rules {
        let keys = rule["publicKeys"].as_array().map_or(&[][..], Vec::as_slice);
        let good = |key: &Value| {
            key.as_str()
                .is_some_and(|key| key.starts_with("ssh-") || key.starts_with("age1"))
        };
        ensure!(
            !keys.is_empty() && keys.iter().all(good),
            "secrets.nix: {name} is for {keys:?}"
        );
    }
    for file in tracked(|name| name.starts_with("secrets/"))? {
        let name = file.trim_start_matches("secrets/");
        let encrypted = Path::new(name)
            .extension()
            .is_some_and(|kind| kind == "age");
        ensure!(
            !encrypted || rules.contains_key(name),
            "secrets.nix has no rule for {name}"
        );
    }
    Ok(())
}

/// Checks that Nix files define nothing that is not used.
pub fn nix_files_have_no_dead_code() -> Result<()> {
    let files = nix_files()?;
    ensure!(!files.is_empty(), "git knows no Nix file");
    let deadnix = tools::deadnix()?;
    let output = Command::new(deadnix)
        .args(["--fail", "--no-lambda-pattern-names"])
        .args(&files)
        .current_dir(project())
        .output()
        .context("run deadnix")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

fn nix_files() -> Result<Vec<String>> {
    tracked(|name| {
        Path::new(name)
            .extension()
            .is_some_and(|kind| kind == "nix")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_a_formatter_would_change_is_found() {
        assert_eq!(untidy("{ }\n"), None);
        for (text, what) in [
            ("{ }", " ends with one newline"),
            ("{ }\n\n", " ends with one newline"),
            ("{\n\ta = 1;\n}\n", "2: a tab"),
            ("{ \n}\n", "1: a space at its end"),
        ] {
            assert_eq!(untidy(text).as_deref(), Some(what), "{text:?}");
        }
    }

    #[test]
    fn scripts_are_known_by_their_first_line() {
        assert!(has_shebang("scripts/fleet.sh"));
        assert!(!has_shebang("README.md"));
    }
}
