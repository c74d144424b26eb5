//! Stands before the listener in the benchmark's images: tells the time at which the runner's code
//! ran first, and the time at which it ended.
//!
//! By a datagram, since nothing that is written in the container is sure to outlive it.

use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, gethostname};
use testbed::bench::{LISTENER_BEHIND, STAMPS};

fn main() -> Result<ExitCode> {
    tell("code")?;
    let listener = std::env::current_exe()?.with_file_name(LISTENER_BEHIND);
    let mut child = Command::new(listener)
        .args(std::env::args_os().skip(1))
        .spawn()?;
    wait(&mut child)?;
    tell("exit")?;
    let status = child.wait()?;
    // A shell's convention for what a signal ended.
    let code = status.code().unwrap_or(128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Returns when the child has ended. Signals are the child's.
fn wait(child: &mut Child) -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    while child.try_wait()?.is_none() {
        let signal = signals.wait()?;
        if signal != Signal::SIGCHLD {
            kill(Pid::from_raw(i32::try_from(child.id())?), signal).ok();
        }
    }
    Ok(())
}

fn tell(what: &str) -> Result<()> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
    let host = gethostname()?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(
        format!("{what} {} {at}", host.to_string_lossy()).as_bytes(),
        STAMPS,
    )?;
    Ok(())
}
