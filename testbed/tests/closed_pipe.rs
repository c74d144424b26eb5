//! A command whose output lost its reader ends quietly: `cargo run -p testbed -- language | head -1`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::{Command, Stdio};

/// Runs the testbed with one end of a pipe whose other end is closed. Returns the exit code and what it
/// wrote to the stream that is open.
fn run(arguments: &[&str], is_stdout_closed: bool) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
    command
        .args(arguments)
        // Not absolute, so no command finds a host.
        .env("RUNNER_TESTBED_DIR", "nowhere")
        .stdin(Stdio::null());
    let output = if is_stdout_closed {
        command.stdout(writer).stderr(Stdio::piped())
    } else {
        command.stdout(Stdio::piped()).stderr(writer)
    }
    .output()
    .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_listing_without_a_reader_ends_quietly() {
    let ended = run(&["language", "testbed/src/checks"], true);
    assert_eq!(ended, (Some(i32::from(stdio::READER_GONE)), String::new()));
}

#[test]
fn an_error_without_a_reader_keeps_its_exit_code() {
    let ended = run(&["host", "exec", "true"], false);
    assert_eq!(ended, (Some(1), String::new()));
}
