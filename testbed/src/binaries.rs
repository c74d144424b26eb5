//! Our programs, built by cargo before they are tested.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The controller: daemon, launcher and tools in one.
pub const CONTROLLER: &str = "runner-controller";
/// The stand-in for GitHub.
pub const SIM: &str = "github-sim";
/// The stand-in for the runner's listener, which goes into the image.
pub const LISTENER: &str = "standin-listener";

/// Profile in which programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// The profile that is shipped and measured.
    Release,
}

/// The built programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    paths: BTreeMap<String, PathBuf>,
}

impl Binaries {
    /// Builds them with the cargo that runs us, or takes them from `RUNNER_TESTBED_BIN_DIR`.
    pub fn build(profile: Profile) -> Result<Self> {
        if let Some(dir) = std::env::var_os("RUNNER_TESTBED_BIN_DIR") {
            let dir = PathBuf::from(dir);
            let paths = [CONTROLLER, SIM, LISTENER].map(|name| (name.to_owned(), dir.join(name)));
            for (_, path) in &paths {
                ensure!(
                    path.is_file(),
                    "RUNNER_TESTBED_BIN_DIR has no {}",
                    path.display()
                );
            }
            return Ok(Self {
                paths: paths.into(),
            });
        }
        let mut paths = BTreeMap::new();
        match profile {
            Profile::Dev => {
                build_packages(&["runner-controller", "github-sim"], &[], &mut paths)?;
            }
            // Cargo gives a dependency the features that all packages of a build want. The shipped
            // program is built alone, so the measured one is too.
            Profile::Release => {
                build_packages(&["runner-controller"], &["--release"], &mut paths)?;
                build_packages(&["github-sim"], &["--release"], &mut paths)?;
            }
        }
        for name in [CONTROLLER, SIM, LISTENER] {
            ensure!(paths.contains_key(name), "cargo built no program {name}");
        }
        Ok(Self { paths })
    }

    /// One of them.
    pub fn path(&self, name: &str) -> Result<&Path> {
        self.paths
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("no program {name} was built"))
    }

    /// Changes when a program does. Not its bytes: hashing a debug build takes longer than a build.
    pub fn fingerprint(&self, name: &str) -> Result<String> {
        let path = self.path(name)?;
        let meta = path
            .metadata()
            .with_context(|| path.display().to_string())?;
        Ok(format!(
            "{}:{}:{}.{}",
            path.display(),
            meta.len(),
            meta.mtime(),
            meta.mtime_nsec()
        ))
    }
}

/// Builds the programs of packages, and adds their paths.
fn build_packages(
    packages: &[&str],
    options: &[&str],
    paths: &mut BTreeMap<String, PathBuf>,
) -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--bins"]).args(options);
    for package in packages {
        command.args(["--package", package]);
    }
    // Cargo names each program that it made, so no target directory is guessed.
    command
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let output = command.output().context("run cargo")?;
    ensure!(
        output.status.success(),
        "cargo build of {} ended with {}",
        packages.join(", "),
        output.status
    );
    paths.extend(executables(&String::from_utf8_lossy(&output.stdout)));
    Ok(())
}

/// Builds the program that stands before the listener in the benchmark's images.
pub fn build_stamped_listener() -> Result<PathBuf> {
    const NAME: &str = "stamped-listener";
    let output = cargo()
        .args(["build", "--package", "testbed", "--bin", NAME])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo")?;
    ensure!(
        output.status.success(),
        "cargo build ended with {}",
        output.status
    );
    executables(&String::from_utf8_lossy(&output.stdout))
        .remove(NAME)
        .with_context(|| format!("cargo built no program {NAME}"))
}

/// The cargo that started us, or the one in the path, in the workspace.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    // The variables of `cargo run` about our package are not for another cargo: build scripts that
    // watch these variables, ring's for one, would run again, and all that depends on them after.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// The workspace's root.
#[must_use]
pub fn workspace() -> PathBuf {
    // Set anew by `cargo run`, so that a moved checkout is found; else where we were compiled.
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_path_buf)
}

#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"serde","kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"github-sim","kind":["bin"]},"executable":"/t/github-sim"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let found = executables(messages);
        assert_eq!(found.len(), 1);
        assert_eq!(found[SIM], Path::new("/t/github-sim"));
    }
}
