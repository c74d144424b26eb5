//! The reader of a container's console: it passes lines on to the journal, bounded in bytes.
//!
//! The unit's rate limit counts lines, and one line may have 48 KiB. Without this bound a job pushes the
//! host's own log out of the journal within minutes.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use super::error::{OrRefuse, Refusal, RootError};
use super::ready::start_beside;
use super::sandbox::Sandbox;

/// Name of the reader's command.
pub(crate) const COMMAND: &str = "relay-console";
/// Maximum length of a line. The rest of a longer line is dropped.
const MAX_LINE_BYTES: usize = 2048;
/// Maximum number of bytes in one [`INTERVAL`]. GitHub's listener writes a few lines for each job.
const MAX_BYTES: usize = 128 * 1024;
/// Interval of the bound, as in the unit's rate limit.
const INTERVAL: Duration = Duration::from_mins(1);

/// Starts the reader as a child of this process. Returns the end of its pipe to write to.
pub(crate) fn start() -> Result<OwnedFd, RootError> {
    let begin = || -> io::Result<OwnedFd> {
        let (read, write) = io::pipe()?;
        start_beside(
            Command::new(std::env::current_exe()?)
                .arg(COMMAND)
                .stdin(read),
        )?;
        Ok(write.into())
    };
    begin().or_refuse(Refusal::Nspawn, || "start the reader of the console".into())
}

/// Copies standard input to standard output, bounded, until the container has ended.
pub fn relay_console() -> Result<(), RootError> {
    Sandbox::default().enter()?;
    let (mut from, mut to) = (io::stdin().lock(), io::stdout().lock());
    let mut bound = Bound::new(Instant::now());
    let mut chunk = [0; 4096];
    let refuse = || "copy the console to the journal".to_owned();
    loop {
        let length = from.read(&mut chunk).or_refuse(Refusal::Nspawn, refuse)?;
        let lines = bound.pass(&chunk[..length], Instant::now());
        to.write_all(&lines)
            .and_then(|()| to.flush())
            .or_refuse(Refusal::Nspawn, refuse)?;
        if length == 0 {
            return Ok(());
        }
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
        if self.passed + length <= MAX_BYTES {
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
