//! The text of a bundle, made of files that a job may have written.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, UNIX_EPOCH};

use crate::pool::SlotId;
use crate::redact::Redactor;
use crate::terminal;
use crate::world::{EndRecord, Exit};

/// Maximum number of bytes of a file that are read, its last ones.
pub(super) const MAX_FILE_BYTES: usize = 256 << 10;
/// Maximum size of a file's text in a bundle. Escapes are longer than what they stand for.
pub(super) const MAX_TEXT_BYTES: usize = 512 << 10;

/// Returns the first lines of a bundle: the runner and its end.
pub(super) fn head(id: &SlotId, end: &EndRecord, ended_unix_ms: u64) -> String {
    let at = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ended_unix_ms));
    let exit = match &end.exit {
        Exit::Status(status) => format!("status {status}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::Unknown => "unknown".to_owned(),
    };
    let mut text = format!(
        "log files of the listener in {id}, which ended at {at}: exit {exit}, systemd's result {}\n",
        end.service_result
    );
    if let Some(line) = &end.last_line {
        let _ = writeln!(text, "its runner wrote last: {line}");
    }
    text
}

/// Returns a bundle's text. A file that cannot be read has the reason instead.
pub(super) fn of_files(head: &str, files: Vec<(String, File)>, redactor: &Redactor) -> String {
    let mut text = finished(head, redactor);
    for (name, file) in files {
        let (whole, tail) = match read_tail(&file) {
            Ok(read) => read,
            Err(error) => (0, format!("cannot be read: {error}")),
        };
        let _ = writeln!(text, "\n==> {name} ({whole} bytes) <==");
        text += &finished(&tail, redactor);
    }
    text
}

/// Returns a file's size and its last bytes as text, from the beginning of an entry.
fn read_tail(file: &File) -> io::Result<(u64, String)> {
    let size = file.metadata()?.len();
    let mut bytes = vec![0; MAX_FILE_BYTES];
    let start = size.saturating_sub(MAX_FILE_BYTES as u64);
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], start.saturating_add(filled as u64))? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    let text = String::from_utf8_lossy(&bytes);
    let text = if start == 0 {
        &text
    } else {
        without_part(&text)
    };
    Ok((size, text.to_owned()))
}

/// Returns the text without the entry whose beginning is missing: the rest of a secret has no shape.
///
/// An entry of the listener begins with a bracket, and may have many lines.
fn without_part(text: &str) -> &str {
    let at = text.find("\n[").or_else(|| text.find('\n'));
    at.map_or("", |at| &text[at + 1..])
}

/// Returns text as it goes into a bundle: without secrets, safe for a terminal, and bounded.
fn finished(text: &str, redactor: &Redactor) -> String {
    // Secrets go first, because neither their value nor their shape is known by a half of one.
    let text = redactor.redact(text);
    let lines = text.lines().map(|line| terminal::plain(line));
    let mut text = String::new();
    for line in lines {
        text += &line;
        text.push('\n');
    }
    let start = text.ceil_char_boundary(text.len().saturating_sub(MAX_TEXT_BYTES));
    text.split_off(start)
}

/// Checks for [`crate::outside`] that a log file puts neither a token nor a terminal's control into a bundle.
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "a panic is how the check fails")]
pub(crate) fn try_text(text: &str) {
    let redactor = Redactor::new(std::iter::empty()).expect("shapes are regular expressions");
    let kept = finished(&format!("{text}\nghs_0123456789abcdef\n{text}"), &redactor);
    assert!(kept.len() <= MAX_TEXT_BYTES);
    assert!(!kept.contains("ghs_0123456789abcdef"));
    assert!(kept.chars().all(|c| c == '\n' || !c.is_control()));
    let _ = without_part(text);
}
