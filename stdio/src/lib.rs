//! Standard output and standard error of the workspace's programs.
//!
//! Rust ignores `SIGPIPE`, so a write to a pipe whose reader is gone fails, and `println!` and
//! `eprintln!` panic on that failure (`runner-status | head -1`). The functions of this crate never
//! panic. A program that uses them denies the macros with clippy's `print_stdout` and `print_stderr`.
//!
//! The default action of `SIGPIPE` would be shorter to restore. It would also end a program that
//! writes to a socket whose peer is gone, and root's clean-up while journald restarts.

use std::fmt::Display;
use std::io::{self, Write};

/// Exit status of a program whose output lost its reader: 128 + `SIGPIPE`, which a shell reports for
/// a program that the signal ended.
pub const READER_GONE: u8 = 128 + 13;

/// Failure to write to standard output.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// The reader closed its end of the pipe. The program ends quietly with [`READER_GONE`].
    #[error("cannot write to standard output: its reader is gone")]
    ReaderGone,
    /// Another failure, for example a full disk.
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
}

impl From<io::Error> for PrintError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::Write(error)
        }
    }
}

/// Prints what a command exists to show. A caller passes the error on and shows nothing further.
pub fn print(text: impl Display) -> Result<(), PrintError> {
    Ok(write(&mut io::stdout().lock(), format_args!("{text}"))?)
}

/// Prints a line of what a command exists to show.
pub fn print_line(line: impl Display) -> Result<(), PrintError> {
    Ok(write(&mut io::stdout().lock(), format_args!("{line}\n"))?)
}

/// Reports work in progress in a line on standard output. The work matters more than its report, so
/// it goes on when the line cannot be written.
pub fn progress(line: impl Display) {
    // The exit status still tells how the work ended.
    let _ = write(&mut io::stdout().lock(), format_args!("{line}\n"));
}

/// Reports a failure in a line on standard error. A line that cannot be written is dropped, because
/// it has no other place.
pub fn error(line: impl Display) {
    let _ = write(&mut io::stderr().lock(), format_args!("{line}\n"));
}

/// Writes a text at once, so that lines of several processes do not mix.
fn write(stream: &mut impl Write, text: std::fmt::Arguments<'_>) -> io::Result<()> {
    stream.write_all(text.to_string().as_bytes())?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_told_apart_from_a_full_disk() {
        let failure =
            |kind| PrintError::from(write(&mut Failing(kind), format_args!("x")).unwrap_err());
        assert!(matches!(
            failure(io::ErrorKind::BrokenPipe),
            PrintError::ReaderGone
        ));
        assert!(matches!(
            failure(io::ErrorKind::StorageFull),
            PrintError::Write(_)
        ));
    }

    #[test]
    fn a_line_is_written_in_one_call() {
        struct Calls(Vec<Vec<u8>>);
        impl Write for Calls {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push(bytes.to_vec());
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut calls = Calls(Vec::new());
        write(&mut calls, format_args!("{} of {}\n", 1, 2)).unwrap();
        assert_eq!(calls.0, [b"1 of 2\n"]);
    }
}
