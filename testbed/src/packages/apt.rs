//! This machine's apt.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::retry::Retry;
use super::undelivered;
use crate::bed::{last_lines, run};

/// Options of every apt: a stalled transfer ends, and a transfer that broke off starts again at once.
pub const OPTIONS: &[&str] = &["Acquire::Retries=3", "Acquire::http::Timeout=30"];

/// An operator may be installing something; seconds to wait for that.
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=120";

/// Runs apt with a log of what it says.
#[derive(Debug, Clone)]
pub struct Apt {
    log: PathBuf,
    retry: Retry,
    /// More `--option` values.
    options: Vec<String>,
}

impl Apt {
    /// Returns the apt whose log is this file.
    #[must_use]
    pub fn new(log: PathBuf) -> Self {
        Self {
            log,
            retry: Retry::MIRROR,
            options: Vec::new(),
        }
    }

    /// Sets more options, and the attempts.
    #[must_use]
    pub fn with(self, options: Vec<String>, retry: Retry) -> Self {
        Self {
            retry,
            options,
            ..self
        }
    }

    /// Installs packages, each attempt with a fresh index.
    ///
    /// apt installs all of them or none.
    pub fn install(&self, packages: &[&str]) -> Result<()> {
        let what = format!("install {}", packages.join(" "));
        self.retry
            .run(&what, |_| {
                self.update();
                self.logged(
                    self.apt_get()
                        .args(["install", "--yes", "--no-install-recommends"])
                        .args(packages),
                )
            })
            .with_context(|| {
                format!(
                    "{what} with apt; run `apt-get update && apt-get install {}` by hand and look at its output, \
                     or configure another mirror in /etc/apt",
                    packages.join(" ")
                )
            })
    }

    /// Downloads a package, and unpacks its files into a directory that does not exist yet.
    ///
    /// The directory appears when it is complete.
    pub fn unpack(&self, package: &str, target: &Path) -> Result<()> {
        let parent = target.parent().context("a directory has a parent")?;
        fs::create_dir_all(parent)?;
        let what = format!("download {package}");
        self.retry
            .run(&what, |_| {
                self.update();
                let work = tempfile::Builder::new()
                    .prefix("unfinished-")
                    .tempdir_in(parent)?;
                // apt's unprivileged user writes here, or apt warns.
                self.logged(
                    self.apt_get()
                        .args(["download", package])
                        .current_dir(work.path()),
                )?;
                let archive = fs::read_dir(work.path())?
                    .filter_map(Result::ok)
                    .map(|entry| entry.path())
                    .find(|path| path.extension() == Some(OsStr::new("deb")))
                    .with_context(|| format!("apt left no archive of {package}"))?;
                let files = work.path().join("files");
                run(Command::new("dpkg-deb")
                    .arg("--extract")
                    .arg(&archive)
                    .arg(&files))?;
                fs::rename(&files, target)
                    .with_context(|| format!("rename to {}", target.display()))
            })
            .with_context(|| {
                format!("{what} with apt; run `apt-get update` by hand and look at its output")
            })
    }

    /// Returns the package that a metapackage stands for: its first dependency whose name starts with
    /// `prefix`.
    pub fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let find = || {
            let said = run(self.command("apt-cache").args(["depends", package]))?;
            said.lines()
                .filter_map(|line| line.trim().strip_prefix("Depends: "))
                .find(|name| name.starts_with(prefix))
                .map(str::to_owned)
                .with_context(|| format!("no dependency of {package} starts with {prefix}"))
        };
        find().or_else(|_| {
            // A new machine has no index.
            self.update();
            find()
        })
    }

    /// Renews the index. A failure is left to the command that needs the index: an unreachable repository
    /// of another vendor does not matter here.
    fn update(&self) {
        self.logged(self.apt_get().arg("update")).ok();
    }

    fn apt_get(&self) -> Command {
        let mut command = self.command("apt-get");
        command.arg("--quiet=2");
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null());
        let options = OPTIONS.iter().copied().chain([LOCK_TIMEOUT]);
        for option in options.chain(self.options.iter().map(String::as_str)) {
            command.args(["--option", option]);
        }
        command
    }

    fn logged(&self, command: &mut Command) -> Result<()> {
        fs::write(&self.log, "")?;
        let file = OpenOptions::new().append(true).open(&self.log)?;
        let status = command
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .context("run apt-get; this machine needs Debian's apt")?;
        if !status.success() {
            let said = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
            bail!(undelivered::summary(&said).unwrap_or_else(|| last_lines(&said, 20)));
        }
        Ok(())
    }
}
