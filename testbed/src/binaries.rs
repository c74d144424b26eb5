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

/// GitHub's listener in the directory of a runner.
const RUNNER_LISTENER: &str = "bin/Runner.Listener";

/// Profile in which programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// The profile that is shipped and measured.
    Release,
}

/// Programs that an operator has, in place of those that cargo builds.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Programs {
    /// GitHub's own runner, unpacked here, in the stand-in listener's place
    #[arg(long, value_name = "DIR")]
    pub runner: Option<PathBuf>,
    /// Take runner-controller, github-sim and standin-listener from here, and build nothing
    #[arg(long, value_name = "DIR")]
    pub binaries: Option<PathBuf>,
}

/// The built programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    paths: BTreeMap<String, PathBuf>,
    /// Directory of GitHub's own runner, if it takes the stand-in listener's place.
    runner: Option<PathBuf>,
}

impl Binaries {
    /// Builds them with the cargo that runs us, or takes them from `RUNNER_TESTBED_BIN_DIR`.
    pub fn build(profile: Profile) -> Result<Self> {
        Self::with(profile, &Programs::default())
    }

    /// Returns the operator's programs, and builds those that are missing.
    pub fn with(profile: Profile, programs: &Programs) -> Result<Self> {
        let runner = programs.runner.as_deref().map(fresh_runner).transpose()?;
        let given = std::env::var_os("RUNNER_TESTBED_BIN_DIR").map(PathBuf::from);
        let paths = match programs.binaries.clone().or(given) {
            Some(dir) => in_directory(&dir)?,
            None => Self::built(profile)?,
        };
        Ok(Self { paths, runner })
    }

    fn built(profile: Profile) -> Result<BTreeMap<String, PathBuf>> {
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
        Ok(paths)
    }

    /// Returns the directory of GitHub's own runner, if it takes the stand-in listener's place.
    #[must_use]
    pub fn runner(&self) -> Option<&Path> {
        self.runner.as_deref()
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
        fingerprint_of(self.path(name)?)
    }

    /// Changes when GitHub's own runner does, or takes or leaves the stand-in's place.
    pub fn runner_fingerprint(&self) -> Result<String> {
        self.runner.as_ref().map_or_else(
            || Ok("standin".into()),
            |dir| fingerprint_of(&dir.join(RUNNER_LISTENER)),
        )
    }
}

fn fingerprint_of(path: &Path) -> Result<String> {
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

/// Returns our programs in a directory.
fn in_directory(dir: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let paths = [CONTROLLER, SIM, LISTENER].map(|name| (name.to_owned(), dir.join(name)));
    for (_, path) in &paths {
        ensure!(
            path.is_file(),
            "cannot use {}: the directory of programs lacks it",
            path.display()
        );
    }
    Ok(paths.into())
}

/// Returns the directory of a runner that no registration has used.
fn fresh_runner(dir: &Path) -> Result<PathBuf> {
    let dir = dir
        .canonicalize()
        .with_context(|| format!("find the runner in {}", dir.display()))?;
    ensure!(
        dir.join(RUNNER_LISTENER).is_file(),
        "{} has no {RUNNER_LISTENER}; unpack actions-runner-linux-*.tar.gz there",
        dir.display()
    );
    // Its credentials would get into the image.
    ensure!(
        !dir.join(".credentials").exists() && !dir.join(".runner").exists(),
        "{} is configured for a repository; unpack a new runner",
        dir.display()
    );
    Ok(dir)
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
    paths.extend(build(&mut command, &format!("of {}", packages.join(", ")))?);
    Ok(())
}

/// Runs a build. Returns the programs that it made.
fn build(command: &mut Command, what: &str) -> Result<BTreeMap<String, PathBuf>> {
    // Cargo names each program that it made, so no target directory is guessed.
    let output = command
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo")?;
    let status = output.status;
    ensure!(status.success(), "cargo build {what} ended with {status}");
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// Builds one program with these arguments of `cargo build`.
pub(crate) fn build_program(name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let mut programs = build(cargo().arg("build").args(arguments), &format!("of {name}"))?;
    programs
        .remove(name)
        .with_context(|| format!("cargo built no program {name}"))
}

/// Builds the simulation with what the tests of the workspace have compiled, if they ran before.
pub fn build_simulation() -> Result<PathBuf> {
    build_program("simulate", &["--workspace", "--tests"])
}

/// Builds the program that stands before the listener in the benchmark's images.
pub fn build_stamped_listener() -> Result<PathBuf> {
    const NAME: &str = "stamped-listener";
    build_program(NAME, &["--package", "testbed", "--bin", NAME])
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
    profile: Option<CompiledFor>,
}

#[derive(Deserialize)]
struct CompiledFor {
    test: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Returns the programs that cargo's messages name.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        // A program's tests have its name.
        .filter(|message| message.profile.as_ref().is_none_or(|profile| !profile.test))
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_is_fresh_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |dir: &Path| fresh_runner(dir).unwrap_err().to_string();
        assert!(refusal(dir.path()).contains("has no bin/Runner.Listener"));
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::write(dir.path().join(RUNNER_LISTENER), "").unwrap();
        assert_eq!(
            fresh_runner(dir.path()).unwrap(),
            dir.path().canonicalize().unwrap()
        );
        std::fs::write(dir.path().join(".credentials"), "{}").unwrap();
        assert!(refusal(dir.path()).contains("is configured"));
    }

    #[test]
    fn a_directory_of_programs_is_whole_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in [CONTROLLER, SIM, LISTENER] {
            assert!(in_directory(dir.path()).is_err(), "{name}");
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(in_directory(dir.path()).unwrap().len(), 3);
    }

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"serde","kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"github-sim","kind":["bin"]},"executable":"/t/github-sim"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"github-sim","kind":["bin"]},"profile":{"test":true},"executable":"/t/deps/github-sim-1"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let found = executables(messages);
        assert_eq!(found.len(), 1);
        assert_eq!(found[SIM], Path::new("/t/github-sim"));
    }
}
