//! A NixOS container that is stopped before its systemd runs. The real lines run as process 1 of a namespace.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// Lines that NixOS inserts into a container's `init`.
const LINES: &str = include_str!("../../nix/early-stop.sh");

/// Stand-in for the rest of `init`, which answers as long as it lives.
const REST: &str = "echo ready; until read -rt 0.1 line; do :; done; echo \"$line\"";

/// Starts a script as process 1 of a namespace, and returns it once it runs.
fn start(script: &str) -> (Child, BufReader<std::process::ChildStdout>, u32) {
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--pid", "--fork"])
        .args(["--kill-child", "bash", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(next_line(&mut output), "ready\n");
    let id = child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    (child, output, children.trim().parse().unwrap())
}

fn next_line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line
}

/// Sends the signal by which systemd-nspawn stops a container.
fn stop(process: u32) {
    let sent = Command::new("bash")
        .args(["-c", &format!("kill -s SIGRTMIN+3 {process}")])
        .status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_container_stops_before_its_systemd_runs() {
    let (mut child, _output, process) = start(&format!("{LINES}{REST}"));
    stop(process);
    assert!(child.wait().unwrap().success());
}

#[test]
fn without_these_lines_the_signal_has_no_effect() {
    let (mut child, mut output, process) = start(REST);
    stop(process);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"still here\n")
        .unwrap();
    assert_eq!(next_line(&mut output), "still here\n");
    assert!(child.wait().unwrap().success());
}
