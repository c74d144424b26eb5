//! The filter of address families that systemd-nspawn itself has.
//!
//! `RestrictAddressFamilies=` of the unit decides which sockets a container can make, and a drop-in can add
//! families. Since version 261 nspawn has a filter as well, and announces a default without netlink, which
//! docker, iproute2 and the C library need. With an empty list nspawn has no filter (seen on 262).
//!
//! `systemd-nspawn --version` takes 5 ms of processor time, so its answer is kept for as long as the program is the same
//! file.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::atomic_file;

/// First version with the argument. Earlier ones refuse it.
const SINCE: u32 = 261;
const ARGUMENT: &str = "--restrict-address-families=";
const PROGRAM: &str = "systemd-nspawn";

/// The version of systemd-nspawn, or a running question for it, which takes as long as some mounts.
pub(crate) enum Question {
    /// An earlier start asked this program.
    Answered(String),
    /// It writes its answer.
    Asked {
        program: Child,
        /// File for the answer, and the identity of the program.
        kept: PathBuf,
        file: String,
    },
}

impl Question {
    /// Reads the answer from a file that only root can write, or starts `systemd-nspawn --version`.
    pub(crate) fn ask(kept: PathBuf) -> io::Result<Self> {
        let file = identity(&found()?)?;
        if let Some(said) = answer(&fs::read_to_string(&kept).unwrap_or_default(), &file) {
            return Ok(Self::Answered(said.to_owned()));
        }
        let program = Command::new(PROGRAM)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self::Asked {
            program,
            kept,
            file,
        })
    }

    /// Returns the argument, if this version of systemd-nspawn knows it.
    pub(crate) fn argument(self) -> io::Result<Option<&'static str>> {
        let said = match self {
            Self::Answered(said) => said,
            Self::Asked {
                mut program,
                kept,
                file,
            } => {
                let mut said = String::new();
                if let Some(mut output) = program.stdout.take() {
                    output.read_to_string(&mut said)?;
                }
                if program.wait()?.success() {
                    atomic_file::replace(&kept, format!("{file}\n{said}").as_bytes(), 0o644)?;
                }
                said
            }
        };
        Ok(version(&said)
            .is_some_and(|version| version >= SINCE)
            .then_some(ARGUMENT))
    }
}

/// Returns the program that `systemd-nspawn` is in `PATH`.
fn found() -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(PROGRAM))
        .find(|file| file.is_file())
        .ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("{PROGRAM} is not in PATH")))
}

/// Returns what tells a file from one that replaced it.
fn identity(path: &Path) -> io::Result<String> {
    let file = fs::metadata(path)?;
    Ok(format!(
        "{} {}:{} {}.{} {}",
        path.display(),
        file.dev(),
        file.ino(),
        file.ctime(),
        file.ctime_nsec(),
        file.size()
    ))
}

/// Returns the kept answer of this program.
fn answer<'a>(kept: &'a str, file: &str) -> Option<&'a str> {
    kept.strip_prefix(file)?.strip_prefix('\n')
}

/// Parses `systemd 257 (257.9-1~deb13u1)`.
fn version(said: &str) -> Option<u32> {
    let number = said.strip_prefix("systemd ")?;
    let end = number.find(|digit: char| !digit.is_ascii_digit());
    number[..end.unwrap_or(number.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_number_before_any_suffix() {
        assert_eq!(version("systemd 257 (257.9-1~deb13u1)\n+PAM"), Some(257));
        assert_eq!(version("systemd 262~rc1 (262~rc1-1)"), Some(262));
        assert_eq!(version("systemd 261"), Some(261));
        assert_eq!(version("nspawn"), None);
    }

    #[test]
    fn an_answer_is_kept_while_the_program_is_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join(PROGRAM);
        fs::write(&program, "one").unwrap();
        let before = identity(&program).unwrap();
        let kept = format!("{before}\nsystemd 257 (257.9)\n");
        assert_eq!(answer(&kept, &before), Some("systemd 257 (257.9)\n"));
        atomic_file::replace(&program, b"two", 0o755).unwrap();
        assert_eq!(answer(&kept, &identity(&program).unwrap()), None);
        for other in ["", &before, "systemd 261"] {
            assert_eq!(answer(other, &before), None);
        }
    }
}
