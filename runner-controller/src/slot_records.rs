//! Life records: what a slot's life was started with, and how it ended.
//!
//! Root writes them, in a directory that the daemon may read. A unit that ended well while the
//! daemon was away leaves no other trace: systemd unloads it at once.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic_file;
use crate::pool::Timestamp;
use crate::world::{EndRecord, Exit, Invocation, StartRecord};

const START: &str = ".start.json";
const END: &str = ".end.json";
/// Ours have a few hundred bytes.
const RECORD_MAX: u64 = 16 * 1024;

/// What a slot's directory says.
#[derive(Debug, Default)]
pub struct SlotRecords {
    /// How the life began.
    pub start: Option<StartRecord>,
    /// How it ended.
    pub end: Option<EndRecord>,
    /// Files that are no records although their names say so. To be logged, not to die of.
    pub garbled: Vec<Garbled>,
}

/// A file that cannot be read as the record it should be.
#[derive(Debug)]
pub struct Garbled {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

#[derive(Serialize, Deserialize)]
struct StartFile {
    generation: String,
    at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct EndFile {
    service_result: String,
    exit: ExitFile,
    memory_peak_bytes: Option<u64>,
    #[serde(default)]
    oom_kills: u64,
    at_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ExitFile {
    Status(i32),
    Signal(String),
    Unknown,
}

/// The newest start and the newest end of a slot, which may be of different lives. A directory that
/// does not exist has neither.
pub fn newest(dir: &Path) -> io::Result<SlotRecords> {
    let mut runners = SlotRecords::default();
    for entry in entries(dir)? {
        let Some((invocation, kind)) = read_name(&entry) else {
            continue;
        };
        match kind {
            Kind::Start => {
                if let Some(start) = read_start(dir, invocation, &mut runners.garbled)
                    && runners.start.as_ref().is_none_or(|old| old.at <= start.at)
                {
                    runners.start = Some(start);
                }
            }
            Kind::End => {
                if let Some(end) = read_end(dir, invocation, &mut runners.garbled)
                    && runners.end.as_ref().is_none_or(|old| old.at <= end.at)
                {
                    runners.end = Some(end);
                }
            }
        }
    }
    Ok(runners)
}

/// Start and end of one life.
#[must_use]
pub fn of(dir: &Path, invocation: &Invocation) -> SlotRecords {
    let mut garbled = Vec::new();
    SlotRecords {
        start: read_start(dir, invocation.clone(), &mut garbled),
        end: read_end(dir, invocation.clone(), &mut garbled),
        garbled,
    }
}

/// What a slot's directory says of one life, or of the newest when `invocation` is `None`. Never
/// fails: what cannot be read or understood is logged and counts as missing, since it says less
/// than we hoped and stops nothing.
#[must_use]
pub fn read(dir: &Path, invocation: Option<&Invocation>) -> SlotRecords {
    let runners = match invocation {
        Some(invocation) => of(dir, invocation),
        None => newest(dir).unwrap_or_else(|error| {
            tracing::warn!(dir = %dir.display(), %error, "cannot list life records");
            SlotRecords::default()
        }),
    };
    for garbled in &runners.garbled {
        tracing::warn!(file = %garbled.file.display(), why = garbled.why, "not a life record");
    }
    runners
}

impl StartFile {
    fn into_start(self, invocation: Invocation) -> StartRecord {
        StartRecord {
            invocation,
            generation: self.generation,
            at: Timestamp::from_millis(self.at_ms),
        }
    }
}

impl EndFile {
    fn into_end(self, invocation: Invocation) -> EndRecord {
        EndRecord {
            invocation,
            service_result: self.service_result,
            exit: match self.exit {
                ExitFile::Status(status) => Exit::Status(status),
                ExitFile::Signal(signal) => Exit::Signal(signal),
                ExitFile::Unknown => Exit::Unknown,
            },
            memory_peak_bytes: self.memory_peak_bytes,
            oom_kills: self.oom_kills,
            at: Timestamp::from_millis(self.at_ms),
        }
    }
}

fn start_bytes(start: &StartRecord) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&StartFile {
        generation: start.generation.clone(),
        at_ms: start.at.millis(),
    })
}

fn end_bytes(end: &EndRecord) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&EndFile {
        service_result: end.service_result.clone(),
        exit: match &end.exit {
            Exit::Status(status) => ExitFile::Status(*status),
            Exit::Signal(signal) => ExitFile::Signal(signal.clone()),
            Exit::Unknown => ExitFile::Unknown,
        },
        memory_peak_bytes: end.memory_peak_bytes,
        oom_kills: end.oom_kills,
        at_ms: end.at.millis(),
    })
}

pub(crate) fn write_start(dir: &Path, start: &StartRecord) -> io::Result<()> {
    write(dir, &start.invocation, START, &start_bytes(start)?)
}

pub(crate) fn write_end(dir: &Path, end: &EndRecord) -> io::Result<()> {
    write(dir, &end.invocation, END, &end_bytes(end)?)
}

/// Removes all but the records of the newest `keep` lives, and what a killed writer left.
pub(crate) fn prune(dir: &Path, keep: usize) -> io::Result<()> {
    let mut ages = Vec::new();
    for entry in entries(dir)? {
        let path = dir.join(&entry);
        match read_name(&entry) {
            Some((invocation, _)) => {
                let written = fs::metadata(&path)?.modified()?;
                ages.push((written, invocation, path));
            }
            None if entry.starts_with('.') => fs::remove_file(path)?,
            None => {}
        }
    }
    ages.sort_by_key(|age| std::cmp::Reverse(age.0));
    let mut kept: Vec<&Invocation> = Vec::new();
    for (_, invocation, path) in &ages {
        if kept.contains(&invocation) {
            continue;
        }
        if kept.len() < keep {
            kept.push(invocation);
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

enum Kind {
    Start,
    End,
}

fn read_name(name: &str) -> Option<(Invocation, Kind)> {
    let (id, kind) = if let Some(id) = name.strip_suffix(START) {
        (id, Kind::Start)
    } else {
        (name.strip_suffix(END)?, Kind::End)
    };
    Some((Invocation::parse(id)?, kind))
}

fn entries(dir: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(dir) {
        Ok(list) => list
            .filter_map(|entry| match entry {
                Ok(entry) => entry.file_name().into_string().ok().map(Ok),
                Err(why) => Some(Err(why)),
            })
            .collect(),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(why) => Err(why),
    }
}

fn read_start(
    dir: &Path,
    invocation: Invocation,
    garbled: &mut Vec<Garbled>,
) -> Option<StartRecord> {
    let file: StartFile = parse(&dir.join(format!("{invocation}{START}")), garbled)?;
    Some(file.into_start(invocation))
}

fn read_end(dir: &Path, invocation: Invocation, garbled: &mut Vec<Garbled>) -> Option<EndRecord> {
    let file: EndFile = parse(&dir.join(format!("{invocation}{END}")), garbled)?;
    Some(file.into_end(invocation))
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, garbled: &mut Vec<Garbled>) -> Option<T> {
    let attempt = || -> io::Result<T> {
        let mut text = Vec::new();
        File::open(path)?.take(RECORD_MAX).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    };
    match attempt() {
        Ok(record) => Some(record),
        // Not written yet, or pruned between our looking and our opening.
        Err(why) if why.kind() == ErrorKind::NotFound => None,
        Err(why) => {
            garbled.push(Garbled {
                file: path.to_owned(),
                why: why.to_string(),
            });
            None
        }
    }
}

fn write(dir: &Path, invocation: &Invocation, suffix: &str, text: &[u8]) -> io::Result<()> {
    // The directory decides who reads.
    atomic_file::replace(&dir.join(format!("{invocation}{suffix}")), text, 0o644)
}

/// What [`crate::outside`] tries: a record that is read is written as it was.
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "to panic is how it tells")]
pub(crate) fn try_record(bytes: &[u8]) {
    let id = || Invocation::parse(&"0".repeat(32)).expect("an invocation");
    if let Ok(file) = serde_json::from_slice::<StartFile>(bytes) {
        let start = file.into_start(id());
        let again = serde_json::from_slice::<StartFile>(&start_bytes(&start).expect("JSON"));
        assert_eq!(again.expect("a start").into_start(id()), start);
    }
    if let Ok(file) = serde_json::from_slice::<EndFile>(bytes) {
        let end = file.into_end(id());
        let again = serde_json::from_slice::<EndFile>(&end_bytes(&end).expect("JSON"));
        assert_eq!(again.expect("an end").into_end(id()), end);
    }
    if let Ok(name) = std::str::from_utf8(bytes) {
        let _ = read_name(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(digit: char) -> Invocation {
        Invocation::parse(&String::from(digit).repeat(32)).unwrap()
    }

    fn start(digit: char, at: u64) -> StartRecord {
        StartRecord {
            invocation: invocation(digit),
            generation: "0011".into(),
            at: Timestamp::from_millis(at),
        }
    }

    fn end(digit: char, at: u64, exit: Exit) -> EndRecord {
        EndRecord {
            invocation: invocation(digit),
            service_result: "exit-code".into(),
            exit,
            memory_peak_bytes: Some(1 << 30),
            oom_kills: 2,
            at: Timestamp::from_millis(at),
        }
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        for exit in [Exit::Status(7), Exit::Signal("KILL".into()), Exit::Unknown] {
            write_start(dir.path(), &start('a', 5)).unwrap();
            write_end(dir.path(), &end('a', 9, exit.clone())).unwrap();
            let runners = of(dir.path(), &invocation('a'));
            assert_eq!(runners.start, Some(start('a', 5)));
            assert_eq!(runners.end, Some(end('a', 9, exit)));
            assert!(runners.garbled.is_empty());
        }
    }

    #[test]
    fn the_newest_start_may_belong_to_a_later_life_than_the_newest_end() {
        let dir = tempfile::tempdir().unwrap();
        write_start(dir.path(), &start('b', 10)).unwrap();
        write_end(dir.path(), &end('b', 11, Exit::Status(0))).unwrap();
        write_start(dir.path(), &start('a', 20)).unwrap();
        let runners = newest(dir.path()).unwrap();
        assert_eq!(runners.start.unwrap().invocation, invocation('a'));
        assert_eq!(runners.end.unwrap().invocation, invocation('b'));
    }

    #[test]
    fn a_garbled_record_is_told_and_hides_no_good_one() {
        let dir = tempfile::tempdir().unwrap();
        write_start(dir.path(), &start('a', 5)).unwrap();
        let bad = dir.path().join(format!("{}{START}", invocation('b')));
        fs::write(&bad, "{\"generation\":").unwrap();
        fs::write(dir.path().join("notes.txt"), "").unwrap();
        let runners = newest(dir.path()).unwrap();
        assert_eq!(runners.start, Some(start('a', 5)));
        assert_eq!(runners.garbled.len(), 1);
        assert_eq!(runners.garbled[0].file, bad);
    }

    #[test]
    fn a_slot_that_never_lived_has_no_records() {
        let dir = tempfile::tempdir().unwrap();
        let runners = newest(&dir.path().join("nowhere")).unwrap();
        assert!(runners.start.is_none() && runners.end.is_none());
    }

    #[test]
    fn pruning_keeps_the_newest_lives_whole() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".half"), "").unwrap();
        for (age, digit) in "0123456789".chars().enumerate() {
            write_start(dir.path(), &start(digit, age as u64)).unwrap();
            write_end(dir.path(), &end(digit, age as u64, Exit::Unknown)).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        prune(dir.path(), 8).unwrap();
        let mut left = entries(dir.path()).unwrap();
        left.sort();
        assert_eq!(left.len(), 16);
        assert!(left[0].starts_with("22"), "{left:?}");
    }
}
