//! `record`: runs a command in a pseudo terminal and writes an animated picture of its output.

mod frames;
mod svg;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::libc::EIO;
use pty_process::Size;
use pty_process::blocking::{Command, open};

use crate::checks::tools::project;

use frames::{Frame, Output};

/// Command to record, and the place of the picture.
#[derive(Debug, Clone)]
pub struct Options {
    /// SVG file to write.
    pub file: PathBuf,
    /// Columns of the terminal.
    pub columns: NonZeroU16,
    /// Rows of the terminal.
    pub rows: NonZeroU16,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// Records a command. The picture is written only if the command succeeds.
pub fn record(options: &Options) -> Result<()> {
    let command_line = options.command.join(" ");
    let mut outputs = vec![Output {
        at: Duration::ZERO,
        bytes: format!("$ {command_line}\r\n").into_bytes(),
    }];
    outputs.extend(run(options).with_context(|| format!("record `{command_line}`"))?);
    let frames = frames::frames(&outputs, options.rows, options.columns);
    let svg = svg::render(&frames, options.columns, &command_line);
    let checkout = project().display().to_string();
    ensure!(
        !svg.contains(&checkout),
        "the output names {checkout}, which means nothing on another machine"
    );
    fs::write(&options.file, svg).with_context(|| format!("write {}", options.file.display()))
}

/// Returns a picture of what a terminal shows.
#[must_use]
pub fn picture(screen: &vt100::Screen, command_line: &str) -> String {
    let (_, columns) = screen.size();
    let frame = Frame {
        rows: frames::rows(screen),
        lasts: Duration::from_secs(1),
    };
    svg::render(&[frame], columns, command_line)
}

/// Runs the command in a pseudo terminal and returns its output, which is also printed.
fn run(options: &Options) -> Result<Vec<Output>> {
    let [program, arguments @ ..] = &options.command[..] else {
        anyhow::bail!("the command is empty");
    };
    let (mut terminal, end) = open().context("open a pseudo terminal")?;
    terminal.resize(Size::new(options.rows.get(), options.columns.get()))?;
    let started = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .env("TERM", "xterm")
        // A build names the directory of the checkout.
        .env("CARGO_TERM_QUIET", "true")
        .spawn(end)
        .context("start the command")?;
    let mut outputs = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = match terminal.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // Linux answers so when the last process on the terminal has ended (pty(7)).
            Err(error) if error.raw_os_error() == Some(EIO) => 0,
            Err(error) => return Err(error).context("read from the pseudo terminal"),
        };
        if length == 0 {
            break;
        }
        let bytes = buffer[..length].to_vec();
        // The recording goes on without a reader of this copy.
        std::io::stdout().write_all(&bytes).ok();
        outputs.push(Output {
            at: started.elapsed(),
            bytes,
        });
    }
    let status = child.wait().context("wait for the command")?;
    ensure!(status.success(), "the command failed: {status}");
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(script: &str, file: PathBuf) -> Options {
        Options {
            file,
            columns: NonZeroU16::new(40).unwrap(),
            rows: NonZeroU16::new(5).unwrap(),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        }
    }

    #[test]
    fn a_recorded_command_has_a_terminal_of_the_given_size() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("recording.svg");
        record(&options("test -t 1 && stty size", file.clone())).unwrap();
        let svg = fs::read_to_string(file).unwrap();
        assert!(svg.contains(">5 40<"), "{svg}");
    }

    #[test]
    fn a_picture_does_not_name_the_checkout() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("recording.svg");
        let mut options = options("", file.clone());
        options.columns = NonZeroU16::new(200).unwrap();
        options.command = vec!["echo".into(), project().display().to_string()];
        let error = record(&options).unwrap_err();
        assert!(error.to_string().contains("another machine"), "{error:#}");
        assert!(!file.exists());
    }

    #[test]
    fn a_command_that_fails_leaves_no_picture() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("recording.svg");
        let error = record(&options("echo half; exit 3", file.clone())).unwrap_err();
        assert!(format!("{error:#}").contains("exit status: 3"), "{error:#}");
        assert!(!file.exists());
    }
}
