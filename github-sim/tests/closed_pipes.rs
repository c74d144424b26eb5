//! Programs whose standard output and standard error have lost their readers.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::process::{Child, Command, Stdio};

use common::Sim;
use github_sim::{Conclusion, JobSpec, JobState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Starts a program whose two outputs are pipes without a reader.
fn start(command: &mut Command) -> Child {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    child
}

/// Exit code of a panic.
const PANIC: i32 = 101;

#[test]
fn the_server_serves_without_a_reader_of_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut server = start(
        Command::new(env!("CARGO_BIN_EXE_github-sim"))
            .args(["--listen", "127.0.0.1:0", "--scope", "acme"])
            .arg("--state")
            .arg(&state)
            .env("GITHUB_SIM_TOKEN", "secret")
            .env("RUST_LOG", "trace"),
    );
    // The state file is written before the first address is announced in the log.
    common::wait_for_file(&state);
    assert_eq!(server.try_wait().unwrap(), None);
    let id = Pid::from_raw(i32::try_from(server.id()).unwrap());
    kill(id, Signal::SIGTERM).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn the_server_reports_an_error_to_no_reader() {
    let mut server = start(
        Command::new(env!("CARGO_BIN_EXE_github-sim"))
            .args(["--scope", "acme"])
            .env_remove("GITHUB_SIM_TOKEN"),
    );
    assert_eq!(server.wait().unwrap().code(), Some(1));
}

#[test]
fn a_listener_runs_its_job_without_a_reader() {
    let sim = Sim::start();
    let minted = sim.mint("r1", &["ci"]).json();
    let root = tempfile::tempdir().unwrap();
    let mut listener = start(
        Command::new(env!("CARGO_BIN_EXE_standin-listener"))
            .args(["run", "--jitconfig"])
            .arg(minted["encoded_jit_config"].as_str().unwrap())
            .env("RUNNER_ROOT", root.path())
            .env("RUNNER_ALLOW_RUNASROOT", "1"),
    );
    let job = sim
        .control()
        .add_job(JobSpec::new("build", &["ci"], "echo output"));
    let job = sim.wait_job(job, JobState::Completed);
    assert_eq!(job.conclusion, Some(Conclusion::Success));
    assert_eq!(listener.wait().unwrap().code(), Some(0));
}

#[test]
fn small_commands_of_the_listener_do_not_panic() {
    for arguments in [
        &["--version"][..],
        &["warmup"],
        &["nonsense"],
        &["run"],
        &["worker"],
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut listener = start(
            Command::new(env!("CARGO_BIN_EXE_standin-listener"))
                .args(arguments)
                .env("RUNNER_ROOT", root.path())
                .env_remove("ACTIONS_RUNNER_INPUT_JITCONFIG"),
        );
        let code = listener.wait().unwrap().code();
        assert!(
            code.is_some_and(|code| code != PANIC),
            "{arguments:?}: {code:?}"
        );
    }
}
