//! The controller of an older commit, built once and kept beside the other build products.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::bed::{self, remove_tree};
use crate::binaries::{self, CONTROLLER, Profile};

/// Returns the full name of a commit, or an error if the repository does not have it.
pub fn resolve(commit: &str) -> Result<String> {
    ensure!(!commit.starts_with('-'), "{commit:?} is not a commit");
    let name = format!("{commit}^{{commit}}");
    let output = git()
        .args(["rev-parse", "--verify", "--quiet", &name])
        .output()
        .context("run git")?;
    ensure!(
        output.status.success(),
        "this repository does not have commit {commit}; a shallow clone must be made whole by \
         `git fetch --unshallow`"
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Builds the controller of a commit and returns the path of the program.
pub fn build(commit: &str, profile: Profile) -> Result<PathBuf> {
    let target = binaries::workspace().join("target");
    let (directory, flags): (&str, &[&str]) = match profile {
        Profile::Dev => ("debug", &[]),
        Profile::Release => ("release", &["--release"]),
    };
    let dir = target.join("against").join(format!("{commit}-{directory}"));
    let program = dir.join(CONTROLLER);
    if program.is_file() {
        return Ok(program);
    }
    let tree = dir.join("tree");
    remove_tree(&tree)?;
    fs::create_dir_all(&tree)?;
    let mut archive = git()
        .args(["archive", commit])
        .stdout(Stdio::piped())
        .spawn()
        .context("run git")?;
    let files = archive.stdout.take().context("git has an output")?;
    bed::run(
        Command::new("tar")
            .args(["--extract", "--directory"])
            .arg(&tree)
            .stdin(files),
    )?;
    ensure!(archive.wait()?.success(), "git archive {commit} failed");
    // The same target directory, so that unchanged dependencies are not built twice. The program is
    // copied because the next build replaces it by another of the same name.
    bed::run(
        binaries::cargo()
            .current_dir(&tree)
            .args(["build", "--quiet", "--locked"])
            .args(flags)
            .args(["--package", CONTROLLER, "--bin", CONTROLLER])
            .env("CARGO_TARGET_DIR", &target),
    )?;
    let unfinished = dir.join("unfinished");
    fs::copy(target.join(directory).join(CONTROLLER), &unfinished)?;
    fs::rename(&unfinished, &program)?;
    remove_tree(&tree)?;
    Ok(program)
}

fn git() -> Command {
    let mut command = Command::new("git");
    command.current_dir(binaries::workspace());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_not_a_commit() {
        assert!(resolve("--all").is_err());
    }
}
