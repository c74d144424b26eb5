//! What root wrote about each life of a slot: how it was started, and how it ended.
//!
//! `<run_dir>/lives/<slot>/<invocation>.{start,end}.json`, owned by root and readable by the
//! daemon. A unit that ended well is forgotten by systemd at once, so for a life that ended while
//! nobody watched, these files are the only trace.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::pool::Timestamp;
use crate::world::{Exit, Invocation, LifeEnd, LifeStart};

/// The most that is read of one record. Root writes a few hundred bytes.
const MAX_BYTES: u64 = 64 * 1024;

const START: &str = ".start.json";
const END: &str = ".end.json";

/// A start record as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRecord {
    /// systemd's `$INVOCATION_ID`.
    pub invocation: String,
    /// `Pool::generation` of the configuration it was started with.
    pub generation: String,
    /// Milliseconds since boot (`CLOCK_BOOTTIME`).
    pub at_ms: u64,
}

/// An end record as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRecord {
    /// systemd's `$INVOCATION_ID`.
    pub invocation: String,
    /// systemd's `$SERVICE_RESULT`.
    pub service_result: String,
    /// systemd's `$EXIT_CODE`: `exited`, `killed` or `dumped`; empty if nothing ran.
    #[serde(default)]
    pub exit_code: String,
    /// systemd's `$EXIT_STATUS`: a number, or the name of a signal.
    #[serde(default)]
    pub exit_status: String,
    /// The unit's highest memory use, if the kernel counted it.
    #[serde(default)]
    pub memory_peak_bytes: Option<u64>,
    /// Processes the kernel killed for want of memory.
    #[serde(default)]
    pub oom_kills: u64,
    /// Milliseconds since boot (`CLOCK_BOOTTIME`).
    pub at_ms: u64,
}

impl From<EndRecord> for Exit {
    fn from(record: EndRecord) -> Self {
        match record.exit_code.as_str() {
            "exited" => record
                .exit_status
                .parse()
                .map_or(Self::Unknown, Self::Status),
            "killed" | "dumped" if !record.exit_status.is_empty() => {
                Self::Signal(record.exit_status)
            }
            _ => Self::Unknown,
        }
    }
}

/// The records of one life. Either may be missing: the launcher writes the first, its sibling the
/// second.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Life {
    /// How it was started.
    pub start: Option<LifeStart>,
    /// How it ended.
    pub end: Option<LifeEnd>,
}

/// Reads the records of one start of a slot, or of the newest when `invocation` is `None`.
///
/// `dir` is the slot's directory; a missing one holds no records. A record that cannot be read or
/// understood counts as missing and is logged: it says less than we hoped, and stops nothing.
#[must_use]
pub fn read(dir: &Path, invocation: Option<&Invocation>) -> Life {
    match invocation {
        Some(invocation) => read_one(dir, invocation),
        None => all(dir).pop().unwrap_or_default(),
    }
}

/// Reads every life recorded for a slot, oldest first.
#[must_use]
pub fn all(dir: &Path) -> Vec<Life> {
    let mut names: Vec<Invocation> = match std::fs::read_dir(dir) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| {
                let stem = name.strip_suffix(START).or(name.strip_suffix(END))?;
                Invocation::parse(stem)
            })
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "cannot list life records");
            Vec::new()
        }
    };
    names.sort();
    names.dedup();
    let mut lives: Vec<Life> = names.iter().map(|name| read_one(dir, name)).collect();
    lives.retain(|life| *life != Life::default());
    lives.sort_by_key(began);
    lives
}

fn began(life: &Life) -> Timestamp {
    let start = life.start.as_ref().map(|start| start.at);
    start
        .or(life.end.as_ref().map(|end| end.at))
        .unwrap_or_default()
}

fn read_one(dir: &Path, invocation: &Invocation) -> Life {
    let start = record::<StartRecord>(&dir.join(format!("{invocation}{START}")));
    let end = record::<EndRecord>(&dir.join(format!("{invocation}{END}")));
    Life {
        start: start
            .filter(|record| record.invocation == invocation.as_str())
            .map(|record| LifeStart {
                invocation: invocation.clone(),
                generation: record.generation,
                at: Timestamp::from_millis(record.at_ms),
            }),
        end: end
            .filter(|record| record.invocation == invocation.as_str())
            .map(|record| LifeEnd {
                invocation: invocation.clone(),
                service_result: record.service_result.clone(),
                memory_peak_bytes: record.memory_peak_bytes,
                oom_kills: record.oom_kills,
                at: Timestamp::from_millis(record.at_ms),
                exit: record.into(),
            }),
    }
}

fn record<T: for<'de> Deserialize<'de>>(path: &PathBuf) -> Option<T> {
    let read = || -> io::Result<T> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    match read() {
        Ok(record) => Some(record),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read a life record");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef";
    const B: &str = "ffffffffffffffffffffffffffffffff";

    fn write(dir: &Path, name: &str, json: &serde_json::Value) {
        std::fs::write(dir.join(name), json.to_string()).unwrap();
    }

    #[test]
    fn a_life_is_read_by_its_invocation_and_the_newest_without_one() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &format!("{A}.start.json"),
            &serde_json::json!({"invocation": A, "generation": "g1", "at_ms": 5}),
        );
        write(
            dir.path(),
            &format!("{A}.end.json"),
            &serde_json::json!({"invocation": A, "service_result": "exit-code",
                "exit_code": "exited", "exit_status": "7", "memory_peak_bytes": 1024,
                "oom_kills": 0, "at_ms": 9, "later": "fields are ignored"}),
        );
        write(
            dir.path(),
            &format!("{B}.start.json"),
            &serde_json::json!({"invocation": B, "generation": "g2", "at_ms": 12}),
        );

        let a = read(dir.path(), Invocation::parse(A).as_ref());
        assert_eq!(a.end.unwrap().exit, Exit::Status(7));
        let newest = read(dir.path(), None);
        assert_eq!(newest.start.unwrap().generation, "g2");
        assert_eq!(newest.end, None);
        assert_eq!(all(dir.path()).len(), 2);
    }

    #[test]
    fn what_cannot_be_understood_counts_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(format!("{A}.end.json")), "{").unwrap();
        // Under another life's name: a record is believed only where it belongs.
        write(
            dir.path(),
            &format!("{A}.start.json"),
            &serde_json::json!({"invocation": B, "generation": "g", "at_ms": 1}),
        );
        std::fs::write(dir.path().join("README"), "").unwrap();
        assert_eq!(
            read(dir.path(), Invocation::parse(A).as_ref()),
            Life::default()
        );
        assert_eq!(read(&dir.path().join("none"), None), Life::default());
        assert!(all(dir.path()).is_empty());
    }

    #[test]
    fn an_exit_is_told_as_systemd_tells_it() {
        let exit = |code: &str, status: &str| -> Exit {
            EndRecord {
                invocation: A.into(),
                service_result: "success".into(),
                exit_code: code.into(),
                exit_status: status.into(),
                memory_peak_bytes: None,
                oom_kills: 0,
                at_ms: 0,
            }
            .into()
        };
        assert_eq!(exit("exited", "0"), Exit::Status(0));
        assert_eq!(exit("killed", "KILL"), Exit::Signal("KILL".into()));
        assert_eq!(exit("dumped", "SEGV"), Exit::Signal("SEGV".into()));
        assert_eq!(exit("", ""), Exit::Unknown);
        assert_eq!(exit("exited", "x"), Exit::Unknown);
    }
}
