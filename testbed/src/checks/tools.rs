//! Programs that judge files of this repository: just, `ShellCheck`, Nix, Prometheus.
//!
//! Debian 13 has all four. They run in a root filesystem of it, so the machine's own versions do not
//! matter. The repository is mounted read-only at `/srv`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::bed::{Bed, Lock, last_lines};
use crate::binaries::cargo;
use crate::rootfs::{self, Incomplete, TOOLS};

/// Which release of deadnix. It is on crates.io and not in Debian.
const DEADNIX: &str = "1.3.1";

/// The root filesystem, built.
#[derive(Debug)]
pub struct Tools {
    root: PathBuf,
}

impl Tools {
    /// Builds what is missing.
    pub fn ready() -> Result<Self> {
        let bed = Bed::open()?;
        let _building = bed.lock(Lock::Build)?;
        rootfs::build(&bed, &[&TOOLS], Incomplete::Keep)?;
        Ok(Self {
            root: TOOLS.path(&bed),
        })
    }

    /// Returns the root filesystem with the programs.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Runs a command in the repository, which it cannot change. Returns what it said on stdout; a
    /// failure carries all that it said.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        // The mounts are in a private namespace, and end with it.
        const ENTER: &str = "mount --bind \"$1\" \"$2/srv\"\n\
                             mount -o remount,bind,ro \"$2/srv\"\n\
                             mount -t tmpfs tmpfs \"$2/tmp\"\n\
                             mount -t proc proc \"$2/proc\"\n\
                             root=$2; shift 2\n\
                             exec chroot \"$root\" sh -c 'cd /srv && exec \"$@\"' sh \"$@\"";
        let output = Command::new("unshare")
            .args([
                "--mount",
                "--propagation=private",
                "sh",
                "-euc",
                ENTER,
                "sh",
            ])
            .arg(project())
            .arg(&self.root)
            .args(argv)
            .env_clear()
            .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
            .env("HOME", "/tmp")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .context("run unshare")?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let said = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
            bail!("{}: {}\n{}", argv[0], output.status, last_lines(&said, 60));
        }
        Ok(stdout)
    }
}

/// The repository.
#[must_use]
pub fn project() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Builds deadnix beside what cargo builds, once.
pub fn deadnix() -> Result<PathBuf> {
    let root = project().join("target/tools");
    let output = cargo()
        .args(["install", "--quiet", "--locked", "--root"])
        .arg(&root)
        .args(["--version", DEADNIX, "deadnix"])
        .stdin(Stdio::null())
        .output()
        .context("run cargo install")?;
    if !output.status.success() {
        bail!(
            "cargo install deadnix: {}\n{}",
            output.status,
            last_lines(&String::from_utf8_lossy(&output.stderr), 20)
        );
    }
    Ok(root.join("bin/deadnix"))
}
