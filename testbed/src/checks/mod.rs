//! Checks of the repository's files: everything that can be judged without running the product.
//!
//! - [`files`]: scripts, recipes, Nix files and secrets, judged by [`tools`] of a pinned Debian release;
//! - [`alerts`]: alert rules for Prometheus, and their pages;
//! - [`dashboard`]: the Grafana dashboard;
//! - [`language`]: prose that breaks the language rules;
//! - [`imports`]: circles between the files of a crate;
//! - [`logs`]: log lines whose text leaves out a field.

pub mod alerts;
mod attributes;
pub mod dashboard;
pub mod files;
pub mod imports;
pub mod language;
pub mod logs;
pub mod tools;

use std::process::Command;

use anyhow::{Context, Result, ensure};

use tools::project;

/// Returns the names of the files that git tracks or would track, and that `matches` accepts.
pub(crate) fn tracked(matches: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(project())
        // Another user may own the checkout. Only file names are read.
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .args(["--cached", "--others", "--exclude-standard"])
        .output()
        .context("run git")?;
    ensure!(output.status.success(), "git ls-files: {}", output.status);
    let names = String::from_utf8(output.stdout).context("decode file names")?;
    Ok(names
        .split('\0')
        .filter(|name| matches(name) && project().join(name).is_file())
        .map(str::to_owned)
        .collect())
}
