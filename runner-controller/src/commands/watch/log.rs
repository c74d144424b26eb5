//! The log of one runner: a journalctl that follows it.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::list::Subject;
use crate::commands::journal;

/// Number of lines of the journal that are read at first.
const LINES: u32 = 500;
/// Maximum number of bytes of a line. The rest of a longer line counts as the next line.
const MAX_BYTES: u64 = 16 * 1024;

/// A journalctl that runs. Dropping it ends it.
pub(super) struct Log {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// The part of the next line that was read.
    part: Vec<u8>,
}

impl Log {
    /// Starts journalctl.
    pub(super) fn open(subject: &Subject) -> std::io::Result<Self> {
        let mut child = Command::new("journalctl")
            .args(arguments(subject))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Its text would be written over the screen.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take();
        let stdout = stdout.ok_or_else(|| std::io::Error::other("it has no output"))?;
        Ok(Self {
            child,
            lines: BufReader::new(stdout),
            part: Vec::new(),
        })
    }

    /// Returns the next line, or the reason for which there is none. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Result<String, String> {
        let room = MAX_BYTES.saturating_sub(self.part.len() as u64).max(1);
        let mut lines = (&mut self.lines).take(room);
        match lines.read_until(b'\n', &mut self.part).await {
            Ok(0) if self.part.is_empty() => Err(self.end().await),
            Ok(_) => {
                let line = std::mem::take(&mut self.part);
                Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
            }
            Err(error) => Err(format!("cannot read the journal: {error}")),
        }
    }

    async fn end(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) if status.success() => "the journal has no further lines".to_owned(),
            Ok(status) => format!(
                "journalctl failed ({status}); reading the journal needs root or the group systemd-journal"
            ),
            Err(error) => format!("cannot wait for journalctl: {error}"),
        }
    }
}

/// Returns the arguments of journalctl. They name the host's journal alone; see `commands/logs.rs`.
pub(super) fn arguments(subject: &Subject) -> Vec<String> {
    let unit = subject.slot.unit();
    let mut arguments: Vec<String> = ["--quiet", "--follow", "--output=short", "--no-hostname"]
        .map(str::to_owned)
        .into();
    arguments.push(format!("--lines={LINES}"));
    match &subject.invocation {
        Some(invocation) => arguments.extend(journal::of_invocation(invocation)),
        None => arguments.push(format!("--unit={unit}")),
    }
    arguments
}
