//! Root's records of the starts and ends in a slot.
//!
//! Root writes them into a directory that the daemon may read. A unit that ended successfully without a
//! daemon leaves no other trace, because systemd unloads it at once.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::pool::{ResourceUse, SlotId, Timestamp};
use crate::world::{EndRecord, Exit, Invocation, RecordedEnd, StartRecord};
use crate::{atomic_file, terminal};

const START: &str = ".start.json";
const END: &str = ".end.json";
/// Suffix of the file with the last line that a runner wrote. It exists while the container runs.
const LAST_LINE: &str = ".last-line";
/// Suffix of the file with the time at which a listener listened. It exists while the container runs.
const LISTENING: &str = ".listening";
/// Suffix of the file with the disk and network that a runner uses. It exists while the container runs.
const USAGE: &str = ".usage";
/// Maximum number of characters of a last line that are kept.
const MAX_LAST_LINE: usize = 200;
/// Number of starts of a slot whose records are kept.
pub(crate) const KEPT: usize = 8;
/// Maximum size of a record in bytes. Real ones have a few hundred.
const MAX_RECORD_BYTES: u64 = 16 * 1024;

/// Records of a slot.
#[derive(Debug, Default)]
pub(crate) struct SlotRecords {
    /// Record of a start.
    pub start: Option<StartRecord>,
    /// Record of an end.
    pub end: Option<EndRecord>,
    /// Files with the name of a record that cannot be read. Each is logged and counts as missing.
    pub unreadable: Vec<UnreadableRecord>,
}

/// A file with the name of a record that cannot be read.
#[derive(Debug)]
pub(crate) struct UnreadableRecord {
    /// The file.
    pub file: PathBuf,
    /// Reason, in words.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct StartFile {
    generation: String,
    #[serde(default)]
    returns_result: bool,
    at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct EndFile {
    service_result: String,
    exit: ExitFile,
    memory_peak_bytes: Option<u64>,
    #[serde(default)]
    oom_kills: u64,
    #[serde(default)]
    cpu_ms: Option<u64>,
    #[serde(default, flatten)]
    usage: ResourceUse,
    #[serde(default)]
    listening_at_ms: Option<u64>,
    #[serde(default)]
    stop_requested: bool,
    #[serde(default)]
    returns_result: bool,
    #[serde(default)]
    last_line: Option<String>,
    at_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ExitFile {
    Status(i32),
    Signal(String),
    Unknown,
}

/// Returns the newest start and the newest end of a slot, which may belong to different runners.
///
/// A directory that does not exist has neither.
pub(crate) fn newest(dir: &Path) -> io::Result<SlotRecords> {
    let mut records = SlotRecords::default();
    for entry in entries(dir)? {
        let Some((invocation, kind)) = read_name(&entry) else {
            continue;
        };
        match kind {
            Kind::LastLine | Kind::Listening | Kind::Usage => {}
            Kind::Start => {
                if let Some(start) = read_start(dir, invocation, &mut records.unreadable)
                    && records.start.as_ref().is_none_or(|old| old.at <= start.at)
                {
                    records.start = Some(start);
                }
            }
            Kind::End => {
                if let Some(end) = read_end(dir, invocation, &mut records.unreadable)
                    && records.end.as_ref().is_none_or(|old| old.at <= end.at)
                {
                    records.end = Some(end);
                }
            }
        }
    }
    Ok(records)
}

/// Returns the start and the end of one runner.
#[must_use]
pub(crate) fn of(dir: &Path, invocation: &Invocation) -> SlotRecords {
    let mut unreadable = Vec::new();
    SlotRecords {
        start: read_start(dir, invocation.clone(), &mut unreadable),
        end: read_end(dir, invocation.clone(), &mut unreadable),
        unreadable,
    }
}

/// Returns the records of one runner, or the newest ones of the slot if `invocation` is `None`.
///
/// A record that cannot be read is logged and counts as missing, because it stops no decision.
#[must_use]
pub(crate) fn read(dir: &Path, invocation: Option<&Invocation>) -> SlotRecords {
    let records = match invocation {
        Some(invocation) => of(dir, invocation),
        None => newest(dir).unwrap_or_else(|error| {
            tracing::warn!(dir = %dir.display(), %error, "cannot list root's records in {}: {error}", dir.display());
            SlotRecords::default()
        }),
    };
    warn_of(&records.unreadable);
    records
}

/// Returns every end on record, of all slots with a directory in `dir`.
///
/// A record that cannot be read is logged and counts as missing.
#[must_use]
pub(crate) fn every_end(dir: &Path) -> Vec<RecordedEnd> {
    let slots = names(dir).into_iter();
    let slots = slots.filter_map(|name| name.parse::<SlotId>().ok());
    let ends = slots.flat_map(|slot| {
        let dir = dir.join(slot.to_string());
        let files = names(&dir).into_iter();
        let ended = files.filter_map(|file| match read_name(&file)? {
            (invocation, Kind::End) => Some(invocation),
            (_, Kind::Start | Kind::LastLine | Kind::Listening | Kind::Usage) => None,
        });
        let ends: Vec<RecordedEnd> = ended
            .filter_map(|invocation| {
                let records = of(&dir, &invocation);
                warn_of(&records.unreadable);
                Some(RecordedEnd {
                    slot: slot.clone(),
                    start: records.start,
                    end: records.end?,
                })
            })
            .collect();
        ends
    });
    ends.collect()
}

/// Returns the names in a directory. One that cannot be listed is logged and counts as empty.
fn names(dir: &Path) -> Vec<String> {
    entries(dir).unwrap_or_else(|error| {
        tracing::warn!(dir = %dir.display(), %error, "cannot list root's records in {}: {error}", dir.display());
        Vec::new()
    })
}

fn warn_of(unreadable: &[UnreadableRecord]) {
    for unreadable in unreadable {
        let (file, reason) = (unreadable.file.display(), &unreadable.reason);
        tracing::warn!(%file, reason, "cannot read root's record {file}: {reason}");
    }
}

impl StartFile {
    fn into_start(self, invocation: Invocation) -> StartRecord {
        StartRecord {
            invocation,
            generation: self.generation,
            returns_result: self.returns_result,
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
            cpu_ms: self.cpu_ms,
            usage: self.usage,
            listening_at: self.listening_at_ms.map(Timestamp::from_millis),
            stop_requested: self.stop_requested,
            returns_result: self.returns_result,
            last_line: self.last_line.as_deref().map(shown),
            at: Timestamp::from_millis(self.at_ms),
        }
    }
}

fn start_bytes(start: &StartRecord) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&StartFile {
        generation: start.generation.clone(),
        returns_result: start.returns_result,
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
        cpu_ms: end.cpu_ms,
        usage: end.usage,
        listening_at_ms: end.listening_at.map(Timestamp::millis),
        stop_requested: end.stop_requested,
        returns_result: end.returns_result,
        last_line: end.last_line.clone(),
        at_ms: end.at.millis(),
    })
}

pub(crate) fn write_start(dir: &Path, start: &StartRecord) -> io::Result<()> {
    write(dir, &start.invocation, START, &start_bytes(start)?)
}

pub(crate) fn write_end(dir: &Path, end: &EndRecord) -> io::Result<()> {
    write(dir, &end.invocation, END, &end_bytes(end)?)
}

/// Returns the path of the file with the last line that a runner wrote.
#[must_use]
pub(crate) fn last_line_file(dir: &Path, invocation: &Invocation) -> PathBuf {
    dir.join(format!("{invocation}{LAST_LINE}"))
}

/// Returns the path of the file with the time at which a listener listened.
#[must_use]
pub(crate) fn listening_file(dir: &Path, invocation: &Invocation) -> PathBuf {
    dir.join(format!("{invocation}{LISTENING}"))
}

/// Reads the time at which a listener first listened, and removes its file.
#[must_use]
pub(crate) fn take_listening(dir: &Path, invocation: &Invocation) -> Option<Timestamp> {
    let text = take(&listening_file(dir, invocation))?;
    let ms = str::from_utf8(&text).ok()?.parse().ok()?;
    Some(Timestamp::from_millis(ms))
}

/// Returns the path of the file with the disk and network that a runner uses.
#[must_use]
pub(crate) fn usage_file(dir: &Path, invocation: &Invocation) -> PathBuf {
    dir.join(format!("{invocation}{USAGE}"))
}

/// Returns the contents of a file with usage. Their length is always the same, so they replace older ones in one write.
#[must_use]
pub(crate) fn usage_bytes(usage: &ResourceUse) -> Vec<u8> {
    let figures = [
        usage.layer_peak_bytes,
        usage.received_bytes,
        usage.sent_bytes,
    ];
    let figures = figures.map(|figure| figure.map_or_else(|| "-".to_owned(), |n| n.to_string()));
    let [layer, received, sent] = figures;
    // u64::MAX has 20 digits.
    format!("{layer:>20} {received:>20} {sent:>20}\n").into_bytes()
}

/// Reads the contents of a file with usage.
#[must_use]
pub(crate) fn parse_usage(bytes: &[u8]) -> ResourceUse {
    let text = String::from_utf8_lossy(bytes);
    let mut figures = text.split_whitespace().map(|word| word.parse().ok());
    let mut next = || figures.next().flatten();
    ResourceUse {
        layer_peak_bytes: next(),
        received_bytes: next(),
        sent_bytes: next(),
    }
}

/// Reads the disk and network that a runner used, and removes their file.
#[must_use]
pub(crate) fn take_usage(dir: &Path, invocation: &Invocation) -> ResourceUse {
    let bytes = take(&usage_file(dir, invocation));
    bytes.map(|bytes| parse_usage(&bytes)).unwrap_or_default()
}

/// Reads a file of a runner that ended, and removes it. One that is left is removed with the other records of its start.
fn take(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(MAX_RECORD_BYTES).read_to_end(&mut bytes).ok()?;
    let _ = fs::remove_file(path);
    Some(bytes)
}

/// Reads the last line that a runner wrote, and removes its file.
#[must_use]
pub(crate) fn take_last_line(dir: &Path, invocation: &Invocation) -> Option<String> {
    let bytes = take(&last_line_file(dir, invocation))?;
    let line = shown(&String::from_utf8_lossy(&bytes));
    (!line.is_empty()).then_some(line)
}

/// Returns a line as it may be shown: without characters that control a terminal, and bounded.
fn shown(line: &str) -> String {
    let plain = terminal::plain(line.trim());
    match plain.char_indices().nth(MAX_LAST_LINE) {
        Some((end, _)) => format!("{}…", &plain[..end]),
        None => plain.into_owned(),
    }
}

/// Removes all but the records of the newest [`KEPT`] starts, and the unfinished files of killed writers.
pub(crate) fn prune(dir: &Path) -> io::Result<()> {
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
        if kept.len() < KEPT {
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
    LastLine,
    Listening,
    Usage,
}

fn read_name(name: &str) -> Option<(Invocation, Kind)> {
    let (id, kind) = if let Some(id) = name.strip_suffix(START) {
        (id, Kind::Start)
    } else if let Some(id) = name.strip_suffix(LAST_LINE) {
        (id, Kind::LastLine)
    } else if let Some(id) = name.strip_suffix(LISTENING) {
        (id, Kind::Listening)
    } else if let Some(id) = name.strip_suffix(USAGE) {
        (id, Kind::Usage)
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
                Err(error) => Some(Err(error)),
            })
            .collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn read_start(
    dir: &Path,
    invocation: Invocation,
    unreadable: &mut Vec<UnreadableRecord>,
) -> Option<StartRecord> {
    let file: StartFile = parse(&dir.join(format!("{invocation}{START}")), unreadable)?;
    Some(file.into_start(invocation))
}

fn read_end(
    dir: &Path,
    invocation: Invocation,
    unreadable: &mut Vec<UnreadableRecord>,
) -> Option<EndRecord> {
    let file: EndFile = parse(&dir.join(format!("{invocation}{END}")), unreadable)?;
    Some(file.into_end(invocation))
}

fn parse<T: for<'de> Deserialize<'de>>(
    path: &Path,
    unreadable: &mut Vec<UnreadableRecord>,
) -> Option<T> {
    let attempt = || -> io::Result<T> {
        let mut text = Vec::new();
        File::open(path)?
            .take(MAX_RECORD_BYTES)
            .read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    };
    match attempt() {
        Ok(record) => Some(record),
        // It is not written yet, or was pruned after the directory was listed.
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            unreadable.push(UnreadableRecord {
                file: path.to_owned(),
                reason: error.to_string(),
            });
            None
        }
    }
}

fn write(dir: &Path, invocation: &Invocation, suffix: &str, text: &[u8]) -> io::Result<()> {
    // The mode of the directory decides which users read it.
    atomic_file::replace(&dir.join(format!("{invocation}{suffix}")), text, 0o644)
}

/// Checks for [`crate::outside`] that a record that is read is written as it was.
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "a panic is how the check fails")]
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
mod tests;
