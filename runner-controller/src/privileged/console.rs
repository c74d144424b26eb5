//! The reader of a container's console: it passes lines on to the journal, bounded in bytes.
//!
//! The unit's rate limit counts lines, and one line may have 48 KiB. Without this bound a job pushes the
//! host's own log out of the journal within minutes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::{OrRefuse, Refusal, RootError};
use super::meter::{self, Meter};
use super::ready::start_beside;
use super::sandbox::Sandbox;
use crate::pool::{Invocation, Timestamp};
use crate::{clock, slot_records};

/// Name of the reader's command.
pub(crate) const COMMAND: &str = "relay-console";
/// Maximum length of a line. The rest of a longer line is dropped.
const MAX_LINE_BYTES: usize = 2048;
/// Maximum number of bytes in one [`INTERVAL`]. GitHub's listener writes a few lines for each job.
const MAX_BYTES: usize = 128 * 1024;
/// Number of bytes that are kept of the last line.
const MAX_KEPT_BYTES: usize = 512;
/// Line of every container's systemd, which wants to raise the limit of core dumps before its journal runs
/// (`initialize_coredump` in src/core/main.c). The launcher's limit refuses that, as it should.
const EXPECTED: &[u8] = b"Failed to set RLIMIT_CORE: Operation not permitted";
/// Last line of the systemd of a minimal image, whose console is its log (`src/core/main.c`).
const END: &[u8] = b"Shutting down.";
/// Ends of the names of units (systemd.unit(5)).
const UNIT_SUFFIXES: [&[u8]; 11] = [
    b".service",
    b".socket",
    b".device",
    b".mount",
    b".automount",
    b".swap",
    b".target",
    b".path",
    b".timer",
    b".slice",
    b".scope",
];
/// End of the line of a listener that waits for a job.
const LISTENS: &[u8] = b"Listening for Jobs";
/// Interval of the bound, as in the unit's rate limit.
const INTERVAL: Duration = Duration::from_mins(1);

/// Starts the reader as a child of this process. Returns the end of its pipe to write to.
///
/// The reader keeps what it learns in the files of `kept`. It also reads the use of the filesystem of `root` and of the
/// network link.
pub(crate) fn start(kept: &KeptFiles, root: &Path, link: &str) -> Result<OwnedFd, RootError> {
    let begin = || -> io::Result<OwnedFd> {
        let (read, write) = io::pipe()?;
        start_beside(
            Command::new(std::env::current_exe()?)
                .arg(COMMAND)
                .args([&kept.last_line, &kept.listening, &kept.usage])
                .args([root.as_os_str(), link.as_ref()])
                .stdin(read),
        )?;
        Ok(write.into())
    };
    begin().or_refuse(Refusal::Nspawn, || "start the reader of the console".into())
}

/// New files for the record of the end.
#[derive(Debug)]
pub struct KeptFiles {
    /// File for the last line.
    pub last_line: PathBuf,
    /// File for the time at which the listener listened.
    pub listening: PathBuf,
    /// File for the disk and network that the runner uses.
    pub usage: PathBuf,
}

impl KeptFiles {
    /// Returns the files of a start.
    pub(crate) fn of(records: &Path, invocation: &Invocation) -> Self {
        Self {
            last_line: slot_records::last_line_file(records, invocation),
            listening: slot_records::listening_file(records, invocation),
            usage: slot_records::usage_file(records, invocation),
        }
    }
}

/// Copies standard input to standard output, bounded, until the container has ended. Keeps the last line, the time at
/// which the listener listened, and the use of disk and network, for the record of the end.
pub fn relay_console(kept: &KeptFiles, root: &Path, link: &str) -> Result<(), RootError> {
    let mut last_line = LastLine::create(&kept.last_line);
    let mut listening = Listening::create(&kept.listening);
    let mut meter = Meter::create(&kept.usage, root, link);
    // Bytes in a buffer would not make it readable.
    let from = io::stdin().as_fd().try_clone_to_owned();
    let mut from = File::from(from.or_refuse(Refusal::Nspawn, || "open standard input".into())?);
    Sandbox::default().reads(meter::LINKS).enter()?;
    let mut to = io::stdout().lock();
    let mut bound = Bound::new(Instant::now());
    let mut chunk = [0; 4096];
    let refuse = || "copy the console to the journal".to_owned();
    loop {
        if !is_readable(&from).or_refuse(Refusal::Nspawn, refuse)? {
            meter.read(Instant::now());
            continue;
        }
        let length = from.read(&mut chunk).or_refuse(Refusal::Nspawn, refuse)?;
        let lines = bound.pass(&chunk[..length], Instant::now());
        last_line.keep(&lines);
        listening.keep(&lines, clock::now());
        to.write_all(&lines)
            .and_then(|()| to.flush())
            .or_refuse(Refusal::Nspawn, refuse)?;
        meter.read(Instant::now());
        if length == 0 {
            return Ok(());
        }
    }
}

/// Waits for the next bytes, or for the next reading of the use of disk and network. Returns true if there are bytes.
fn is_readable(from: &impl AsFd) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(meter::INTERVAL).unwrap_or(PollTimeout::MAX);
    let mut set = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    match poll(&mut set, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Keeps a line of the launcher, which failed before a console was there.
pub(crate) fn keep_line(last_line: &Path, line: &str) {
    LastLine::create(last_line).keep(line.as_bytes());
}

/// File with the last line of a console. The record of an end has no line if this fails.
#[derive(Debug)]
struct LastLine(Option<File>);

impl LastLine {
    fn create(path: &Path) -> Self {
        Self(create(path))
    }

    /// Keeps the last of some lines that says something.
    fn keep(&mut self, lines: &[u8]) {
        let Some(file) = &mut self.0 else { return };
        if let Some(line) = telling(lines) {
            // One write of one size replaces the line before. The sandbox has no call that shortens a
            // file.
            let mut kept = [b' '; MAX_KEPT_BYTES];
            let length = line.len().min(MAX_KEPT_BYTES);
            kept[..length].copy_from_slice(&line[..length]);
            let _ = file.rewind().and_then(|()| file.write_all(&kept));
        }
    }
}

/// File with the time at which a listener first wrote that it listens. A job begins later, so it cannot change it.
#[derive(Debug)]
struct Listening(Option<File>);

impl Listening {
    fn create(path: &Path) -> Self {
        Self(create(path))
    }

    /// Writes the time if one of the lines is the first that says so.
    fn keep(&mut self, lines: &[u8], now: Timestamp) {
        let mut lines = lines.split(|byte| *byte == b'\n');
        if self.0.is_some()
            && lines.any(|line| line.trim_ascii().ends_with(LISTENS))
            && let Some(mut file) = self.0.take()
        {
            let _ = file.write_all(now.millis().to_string().as_bytes());
        }
    }
}

/// Creates a file that only root reads; `None` if that fails.
fn create(path: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    opened.ok()
}

/// Returns the last line that is neither empty, nor systemd's, nor a frame of .NET's stack, which follows the message of
/// an abort.
fn telling(lines: &[u8]) -> Option<&[u8]> {
    let mut lines = lines
        .split(|byte| *byte == b'\n')
        .map(|line| without_source(line.trim_ascii()).trim_ascii());
    lines.rfind(|line| !line.is_empty() && !is_systemds(line) && !line.starts_with(b"at "))
}

/// Returns true for what the systemd of a minimal image says at its end: that, and what happens to its units. A listener
/// that ends at once ends a system whose other units are about to start.
fn is_systemds(line: &[u8]) -> bool {
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    let is_unit = !name.contains(&b' ') && UNIT_SUFFIXES.iter().any(|end| name.ends_with(end));
    line == END || is_unit && line[name.len()..].starts_with(b": ")
}

/// Returns a line without the name and process number that the container's systemd puts before it:
/// `runner[25]: `.
fn without_source(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_prefix(b"runner[") else {
        return line;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match rest[digits..].strip_prefix(b"]:") {
        Some(text) if digits > 0 => text,
        Some(_) | None => line,
    }
}

/// Lines of a console, and the bytes that may still pass.
#[derive(Debug)]
struct Bound {
    line: Vec<u8>,
    passed: usize,
    dropped: usize,
    since: Instant,
}

impl Bound {
    fn new(now: Instant) -> Self {
        Self {
            line: Vec::with_capacity(MAX_LINE_BYTES),
            passed: 0,
            dropped: 0,
            since: now,
        }
    }

    /// Takes the next bytes of the console, none at its end. Returns the lines that may pass.
    fn pass(&mut self, bytes: &[u8], now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        if now.duration_since(self.since) >= INTERVAL || bytes.is_empty() {
            self.report(&mut out);
            (self.passed, self.since) = (0, now);
        }
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line(&mut out);
            } else if self.line.len() < MAX_LINE_BYTES {
                self.line.push(*byte);
            } else {
                self.dropped += 1;
            }
        }
        if bytes.is_empty() && !self.line.is_empty() {
            self.end_line(&mut out);
        }
        out
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        let length = self.line.len() + 1;
        if self.line.trim_ascii() == EXPECTED {
            self.line.clear();
        } else if self.passed + length <= MAX_BYTES {
            self.passed += length;
            out.append(&mut self.line);
            out.push(b'\n');
        } else {
            self.dropped += length;
            self.line.clear();
        }
    }

    fn report(&mut self, out: &mut Vec<u8>) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let text = format!("dropped {dropped} bytes of the console: more than its bound\n");
            out.extend(text.into_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_pass_whole_and_long_ones_are_cut() {
        let now = Instant::now();
        let mut bound = Bound::new(now);
        assert_eq!(bound.pass(b"on", now), b"");
        assert_eq!(bound.pass(b"e\ntwo\nthr", now), b"one\ntwo\n");
        let long = vec![b'x'; 3 * MAX_LINE_BYTES];
        assert_eq!(bound.pass(&long, now), b"");
        let line = bound.pass(b"\n", now);
        assert_eq!(line.len(), MAX_LINE_BYTES + 1);
        assert!(line.starts_with(b"thrxxx"));
        let end = String::from_utf8(bound.pass(b"", now)).unwrap();
        assert!(end.starts_with("dropped 4099 bytes"), "{end}");
    }

    #[test]
    fn the_line_of_every_start_does_not_pass() {
        let now = Instant::now();
        let mut bound = Bound::new(now);
        let lines = b"Failed to set RLIMIT_CORE: Operation not permitted\r\n\
            Failed to set RLIMIT_CORE: Invalid argument\r\n";
        let passed = bound.pass(lines, now);
        assert_eq!(passed, b"Failed to set RLIMIT_CORE: Invalid argument\r\n");
        // So it is never the last line of a runner that failed.
        assert_eq!(telling(&bound.pass(&lines[..52], now)), None);
    }

    #[test]
    fn the_last_line_that_says_something_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("line");
        let mut last_line = LastLine::create(&path);
        let read = || {
            std::fs::read_to_string(&path)
                .unwrap()
                .trim_end()
                .to_owned()
        };
        last_line.keep(b"Listening for Jobs, in a line that is long\n");
        last_line.keep(b"");
        assert_eq!(read(), "Listening for Jobs, in a line that is long");
        let abort = "Process terminated. Couldn't find a valid ICU package.\r\n   at System.Environment.FailFast\n\n";
        last_line.keep(abort.as_bytes());
        assert_eq!(
            read(),
            "Process terminated. Couldn't find a valid ICU package."
        );
        last_line.keep(b"runner[25]:    at System.Main\n");
        assert_eq!(
            read(),
            "Process terminated. Couldn't find a valid ICU package."
        );
        last_line.keep(b"runner[25]: Failed to create session.\n");
        assert_eq!(read(), "Failed to create session.");
        for systemds in [
            "github-runner.service: Failed with result 'exit-code'.\r\nShutting down.\r\n",
            "systemd-journald.service: Failed at step EXEC spawning /usr/lib/systemd/systemd-journald: Connection refused\r\n",
            "dev-sda1.device: Job dev-sda1.device/start failed with result 'dependency'.\r\n",
        ] {
            last_line.keep(systemds.as_bytes());
            assert_eq!(read(), "Failed to create session.");
        }
        for listeners in [
            "A session for this.service: no",
            "x.service",
            "job.service:no",
        ] {
            last_line.keep(listeners.as_bytes());
            assert_eq!(read(), listeners);
        }
        last_line.keep(b"Failed to create session.\n");
        // A container may have no file, and its lines still pass.
        LastLine::create(&path).keep(b"another\n");
        assert_eq!(read(), "Failed to create session.");
    }

    #[test]
    fn the_time_of_the_first_line_of_a_listener_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("listening");
        let mut listening = Listening::create(&path);
        let read = || std::fs::read_to_string(&path).unwrap();
        listening.keep(
            b"Current runner version: '2.336.0'\n",
            Timestamp::from_millis(5),
        );
        assert_eq!(read(), "");
        let lines = b"runner[25]: 2026-11-28 10:00:00Z: Listening for Jobs\r\nmore\n";
        listening.keep(lines, Timestamp::from_millis(700));
        listening.keep(b"Listening for Jobs\n", Timestamp::from_millis(9_000));
        assert_eq!(read(), "700");
    }

    #[test]
    fn the_last_line_passes_without_its_end() {
        let now = Instant::now();
        let mut bound = Bound::new(now);
        assert_eq!(bound.pass(b"last", now), b"");
        assert_eq!(bound.pass(b"", now), b"last\n");
    }

    #[test]
    fn a_flood_passes_up_to_the_bound_in_each_interval() {
        let start = Instant::now();
        let mut bound = Bound::new(start);
        let flood = b"a line of a flood\n".repeat(100_000);
        for minute in 0..3 {
            let now = start + INTERVAL * minute;
            let passed = bound.pass(&flood, now).len();
            assert!(
                (MAX_BYTES - 100..MAX_BYTES + 100).contains(&passed),
                "{passed}"
            );
            assert_eq!(bound.pass(&flood, now), b"");
        }
    }
}
