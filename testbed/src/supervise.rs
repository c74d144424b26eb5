//! Ends what a command started when the command is interrupted.
//!
//! The work is done by a child; we only wait for it and for signals. So Ctrl-C, a closed terminal
//! or a crash of the work itself all come to the same place, where the test host is taken down.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// Set in the child's environment: it does the work.
const WORKER: &str = "RUNNER_TESTBED_WORKER";

/// True in the process that does the work.
#[must_use]
pub fn is_worker() -> bool {
    std::env::var_os(WORKER).is_some()
}

/// Returns a command for a program that supervises its own work, whatever this process does.
#[must_use]
pub fn unsupervised(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_remove(WORKER);
    command
}

/// Runs this program with the same arguments as a child, then tidies up, however the child ended.
pub fn supervise(tidy: impl FnOnce() -> Result<()>) -> Result<ExitCode> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGCHLD,
    ] {
        signals.add(signal);
    }
    // Started before the signals are blocked, since a child inherits what is blocked.
    let mut child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(WORKER, "1")
        .spawn()
        .context("start the worker")?;
    signals.thread_block().context("block signals")?;
    let interrupted = wait(&mut child, &signals)?;
    let status = child.wait()?;
    if let Some(signal) = interrupted {
        stdio::error(format_args!("testbed: {signal}, tidying up"));
    }
    tidy()?;
    // A shell's convention for what a signal ended.
    let code = status.code().unwrap_or(128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Returns when the child has ended, with the signal that made us end it.
fn wait(child: &mut Child, signals: &SigSet) -> Result<Option<Signal>> {
    let mut interrupted = None;
    loop {
        if child.try_wait()?.is_some() {
            return Ok(interrupted);
        }
        let signal = signals.wait().context("wait for a signal")?;
        if signal != Signal::SIGCHLD {
            interrupted = Some(signal);
            // At a terminal the child has heard it already; twice does no harm.
            let pid = i32::try_from(child.id()).context("a process id")?;
            kill(Pid::from_raw(pid), signal).ok();
        }
    }
}
