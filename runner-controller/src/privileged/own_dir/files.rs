//! The log files in a tree that a job made.
//!
//! A job's processes are gone, but nothing here relies on it. Every name is looked up once, below an open directory,
//! without following a link or leaving the filesystem.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, fstat, openat2, statat,
};
use rustix::io::Errno;

/// Places of the listener's log files: in the upper layer of an overlay, and in a directory without one.
const DIRS: [&CStr; 2] = [c"upper/_diag", c"_diag"];
/// Maximum number of files in a bundle. A listener has one for itself and one for its job.
pub(super) const MAX_FILES: usize = 4;
/// Maximum number of directory entries that are looked at.
pub(super) const MAX_ENTRIES: usize = 1000;
/// Maximum length of a name.
const MAX_NAME: usize = 100;

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// Flags with which an open never blocks, whatever the name is by now.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A file that may be kept.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    kind: LogKind,
    /// Time of the last write, negated, so that newer files come first.
    age: i64,
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LogKind {
    Listener,
    Worker,
    Other,
}

/// Opens the newest log files, each with its name: the listener's, then its workers', then others.
///
/// A directory that does not exist has none.
pub(super) fn open(own_dir: &Path) -> io::Result<Vec<(String, File)>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let own = match openat2(
        CWD,
        own_dir,
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    ) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        own => own?,
    };
    for dir in DIRS {
        // A link, a file or another filesystem in its place is a job's, and there is nothing to keep.
        if let Ok(dir) = openat2(&own, dir, READ | OFlags::DIRECTORY, Mode::empty(), RESOLVE) {
            return open_in(&dir);
        }
    }
    Ok(Vec::new())
}

fn open_in(dir: &OwnedFd) -> io::Result<Vec<(String, File)>> {
    let mut candidates = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(dir, &mut buffer);
    for _ in 0..MAX_ENTRIES {
        let Some(entry) = entries.next() else { break };
        let entry = entry?;
        let Some(name) = log_name(entry.file_name()) else {
            continue;
        };
        if let Ok(seen) = statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            && is_log(&seen)
        {
            candidates.push(Candidate {
                kind: kind(name),
                age: seen.st_mtime.saturating_neg(),
                name: name.to_owned(),
            });
        }
    }
    candidates.sort();
    candidates.truncate(MAX_FILES);
    let opened = candidates.into_iter().filter_map(|Candidate { name, .. }| {
        let file = openat2(dir, name.as_str(), READ, Mode::empty(), RESOLVE).ok()?;
        // Another process may have replaced it.
        is_log(&fstat(&file).ok()?).then(|| (name, File::from(file)))
    });
    Ok(opened.collect())
}

/// Returns a name that a listener can have given to a log file.
fn log_name(name: &CStr) -> Option<&str> {
    let name = name.to_str().ok()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_log = name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.strip_suffix(".log").is_some()
        && name.chars().all(is_plain);
    is_log.then_some(name)
}

/// Returns true for a regular file with one name. A second name may be that of the runner's key.
fn is_log(seen: &Stat) -> bool {
    FileType::from_raw_mode(seen.st_mode) == FileType::RegularFile && seen.st_nlink == 1
}

fn kind(name: &str) -> LogKind {
    if name.starts_with("Runner_") {
        LogKind::Listener
    } else if name.starts_with("Worker_") {
        LogKind::Worker
    } else {
        LogKind::Other
    }
}
