//! The machine we are on: our directory, who uses it, and the packages we need.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{FsType, OVERLAYFS_SUPER_MAGIC, statfs};
use sha2::{Digest, Sha256};

use crate::release::Release;

/// Directory of everything, unless `RUNNER_TESTBED_DIR` names another one.
pub const DEFAULT_DIR: &str = "/var/tmp/runner-controller-testbed";

/// Our directory on this machine. It has at most one test host.
#[derive(Debug, Clone)]
pub struct Bed {
    dir: PathBuf,
    release: Release,
}

impl Bed {
    /// Opens the directory, makes it if it is missing, and checks that this machine will do.
    pub fn open() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "must be root: the test host mounts filesystems and makes namespaces"
        );
        let dir = std::env::var_os("RUNNER_TESTBED_DIR")
            .map_or_else(|| PathBuf::from(DEFAULT_DIR), PathBuf::from);
        ensure!(
            dir.is_absolute(),
            "RUNNER_TESTBED_DIR must be an absolute path, not {}",
            dir.display()
        );
        Self::at(&dir)
    }

    /// Opens the directory for test hosts of a release. That of [`Release::Forky`] lies in the other one.
    pub fn of(release: Release) -> Result<Self> {
        let bed = Self::open()?;
        if release == bed.release {
            return Ok(bed);
        }
        let bed = Self::at(&bed.path(release.suite()))?;
        Ok(Self { release, ..bed })
    }

    /// Opens the directories that may have a test host.
    pub fn all() -> Result<Vec<Self>> {
        let mut beds = vec![Self::open()?];
        if beds[0].path(Release::Forky.suite()).exists() {
            beds.push(Self::of(Release::Forky)?);
        }
        Ok(beds)
    }

    /// Opens a directory, as [`Bed::open`] does.
    pub fn at(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        // Root runs programs from here, so no other user may have put them here.
        let meta = fs::metadata(&dir)?;
        ensure!(
            meta.uid() == 0 && meta.mode() & 0o022 == 0,
            "{} must belong to root, and no other user may write to it",
            dir.display()
        );
        let kind = statfs(&dir)
            .with_context(|| format!("statfs {}", dir.display()))?
            .filesystem_type();
        if kind == OVERLAYFS_SUPER_MAGIC || kind == FsType(0x6a65_6a63) {
            bail!(
                "{} is on an overlay filesystem, which can neither be ID-mapped nor carry another overlay; \
                 set RUNNER_TESTBED_DIR to a directory on ext4, xfs, btrfs or tmpfs",
                dir.display()
            );
        }
        Ok(Self {
            dir,
            release: Release::default(),
        })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The release of its test hosts.
    #[must_use]
    pub fn release(&self) -> Release {
        self.release
    }

    /// A path below it.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// A name for what we put into places that are shared by the whole machine. Two beds differ.
    #[must_use]
    pub fn machine_name(&self) -> String {
        format!(
            "rc-testbed-{}",
            &hash(self.dir.as_os_str().as_encoded_bytes())[..6]
        )
    }

    /// Waits until no other process holds this lock, and holds it until it is dropped or the process ends.
    ///
    /// Says whom it waits for: a demo that seems to hang because a test run holds the host would
    /// be a riddle.
    pub fn lock(&self, what: Lock) -> Result<Held> {
        let path = self.path(what.file());
        let file = open_lock(&path)?;
        let mut held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                note(&format!(
                    "waiting for {}, which holds {}",
                    holder.trim(),
                    path.display()
                ));
                Flock::lock(file, FlockArg::LockExclusive)
                    .map_err(|(_, error)| error)
                    .context("flock")?
            }
            Err((_, error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        };
        held.set_len(0)?;
        let words: Vec<String> = std::env::args().skip(1).collect();
        writeln!(held, "process {} ({})", std::process::id(), words.join(" "))?;
        Ok(Held(held))
    }

    /// Holds this lock, or returns nothing if another process holds it.
    pub fn try_lock(&self, what: Lock) -> Result<Option<Held>> {
        let path = self.path(what.file());
        match Flock::lock(open_lock(&path)?, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Some(Held(held))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

/// Work that two processes must not do at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Building or deleting root filesystems, booting or stopping the host: seconds.
    Build,
    /// Working on the host, by a demo, a test run or a benchmark: minutes.
    Work,
}

impl Lock {
    fn file(self) -> &'static str {
        match self {
            Self::Build => "build.lock",
            Self::Work => "work.lock",
        }
    }
}

/// A lock that is held while this lives.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// Tells the person at the terminal what happens. Never on stdout, which belongs to results.
pub fn note(text: &str) {
    stdio::error(format_args!("testbed: {text}"));
}

/// Runs a command with its output in a log file; a failure shows the log's end.
pub fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(log)?;
    let status = command
        .stdin(std::process::Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("run {}", command.get_program().display()))?;
    if !status.success() {
        bail!(
            "{} ended with {status}; {} ends:\n{}",
            command.get_program().display(),
            log.display(),
            tail(log, 20)
        );
    }
    Ok(())
}

/// The last lines of a file; empty if it cannot be read.
#[must_use]
pub fn tail(file: &Path, lines: usize) -> String {
    last_lines(
        &fs::read(file)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default(),
        lines,
    )
}

/// The last lines of a text.
#[must_use]
pub fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Hexadecimal SHA-256.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Writes a file so that a reader, or a crash, sees the old one or the new one.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let dir = path.parent().context("a file has a directory")?;
    let mut file = tempfile::NamedTempFile::new_in(dir)
        .with_context(|| format!("write {}", path.display()))?;
    file.write_all(content)?;
    file.persist(path)
        .with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

/// Deletes a tree without leaving its filesystem: a mount below is an error, not a victim.
pub fn remove_tree(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    run(Command::new("rm")
        .args(["--recursive", "--force", "--one-file-system", "--"])
        .arg(path))
    .map(drop)
}

/// Runs a command to its end and returns its stdout; a failure carries its stderr.
pub fn run(command: &mut Command) -> Result<String> {
    let words: Vec<&OsStr> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    let line = words.join(OsStr::new(" "));
    let output = command
        .output()
        .with_context(|| format!("run {}", line.display()))?;
    if !output.status.success() {
        bail!(
            "`{}` ended with {}: {}",
            line.display(),
            output.status,
            last_lines(&String::from_utf8_lossy(&output.stderr), 20)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_short_text_are_all_of_it() {
        assert_eq!(last_lines("a\nb\n", 5), "a\nb");
        assert_eq!(last_lines("a\nb\nc", 2), "b\nc");
        assert_eq!(last_lines("", 2), "");
    }

    #[test]
    fn a_written_file_is_whole_and_leaves_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stamp");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_that_another_holds_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let bed = Bed {
            dir: dir.path().to_owned(),
            release: Release::Trixie,
        };
        let held = bed.lock(Lock::Work).unwrap();
        assert!(bed.try_lock(Lock::Work).unwrap().is_none());
        drop(held);
        assert!(bed.try_lock(Lock::Work).unwrap().is_some());
    }
}
