//! The controller of an older commit, built once and kept beside the other build products.

use std::fs;
use std::path::{Path, PathBuf};
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
    // The same target directory, so that unchanged dependencies are not built twice. There cargo gives
    // the programs of both trees the same path.
    let shared = target.join(directory).join(CONTROLLER);
    let unfinished = dir.join("unfinished");
    keeping(&shared, &dir.join("kept"), || {
        bed::run(
            binaries::cargo()
                .current_dir(&tree)
                .args(["build", "--quiet", "--locked"])
                .args(flags)
                .args(["--package", CONTROLLER, "--bin", CONTROLLER])
                .env("CARGO_TARGET_DIR", &target),
        )?;
        fs::copy(&shared, &unfinished).context("copy the older program")?;
        Ok(())
    })?;
    fs::rename(&unfinished, &program)?;
    remove_tree(&tree)?;
    Ok(program)
}

/// Does work that may replace a file, and puts the file back. `aside` is a path on the same file system.
fn keeping(file: &Path, aside: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let is_there = file.exists();
    if is_there {
        fs::rename(file, aside).with_context(|| format!("move {} aside", file.display()))?;
    }
    let outcome = work();
    if is_there {
        fs::rename(aside, file).with_context(|| format!("put {} back", file.display()))?;
    }
    outcome
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
    fn the_program_of_this_tree_stays_whatever_the_other_build_does() {
        let dir = tempfile::tempdir().unwrap();
        let (file, aside) = (dir.path().join("program"), dir.path().join("kept"));
        fs::write(&file, "new").unwrap();
        let replace = || Ok(fs::write(&file, "old")?);
        keeping(&file, &aside, replace).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        keeping(&file, &aside, || anyhow::bail!("it does not build")).unwrap_err();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    }

    #[test]
    fn an_option_is_not_a_commit() {
        assert!(resolve("--all").is_err());
    }
}
