//! The relay between systemd-nspawn and the host's systemd: it passes on one `READY=1`, and no text of the
//! container.
//!
//! nspawn forwards every status text of the container's process 1. The host's systemd reads its notify
//! socket before its bus, so one container could silence it for all pools.

use std::fs;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use capctl::caps::Cap;
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixCredentials, sendmsg};
use nix::unistd::{Pid, getppid};

use super::error::{OrRefuse, Refusal, RootError};
use super::sandbox::Sandbox;
use super::trust;

/// Variable with the path of the notify socket (`sd_notify(3)`).
pub(crate) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// Name of the relay's command.
pub(crate) const COMMAND: &str = "relay-ready";
/// Child of the unit's control group into which nspawn moves itself. A process in the unit's own group
/// would keep nspawn from giving the container its controllers (`nspawn-cgroup.c`).
const SUPERVISOR: &str = "supervisor";
/// Notification that is passed on.
const READY: &[u8] = b"READY=1";
/// Maximum size of a notification that is read. nspawn's are shorter.
const MAX_BYTES: usize = 4096;

/// Starts the relay as a child of this process. nspawn, which this process becomes, notifies the socket.
pub(crate) fn start(socket: &Path) -> Result<(), RootError> {
    try_start(socket).or_refuse(Refusal::Nspawn, || {
        format!("start the relay of {}", socket.display())
    })
}

fn try_start(socket: &Path) -> io::Result<()> {
    let notifications = UnixDatagram::bind(socket)?;
    let mut relay = Command::new(std::env::current_exe()?);
    start_beside(relay.arg(COMMAND).stdin(OwnedFd::from(notifications)))
}

/// Starts this program as a child of nspawn, which reaps every child that it has, and moves the child to
/// nspawn's control group.
pub(crate) fn start_beside(command: &mut Command) -> io::Result<()> {
    let relay = command.spawn()?;
    let group = supervisor().map_err(io::Error::other)?;
    match fs::create_dir(&group) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => other?,
    }
    fs::write(group.join("cgroup.procs"), relay.id().to_string())
}

fn supervisor() -> Result<PathBuf, RootError> {
    let own = trust::own_cgroup()?;
    let own = own.trim_start_matches('/');
    Ok(Path::new("/sys/fs/cgroup").join(own).join(SUPERVISOR))
}

/// Waits for the container's `READY=1` on standard input, sends it to systemd in the name of the parent
/// process, and ends. Ends with its parent as well.
pub fn relay_ready() -> Result<(), RootError> {
    let main = getppid();
    set_pdeathsig(Signal::SIGKILL).or_refuse(Refusal::Nspawn, || "follow nspawn's end".into())?;
    if getppid() != main {
        return Ok(());
    }
    let (from, to) = sockets().or_refuse(Refusal::Nspawn, || {
        format!("connect standard input to the socket in {NOTIFY_SOCKET}")
    })?;
    // Only this capability lets a process name another one as the sender (unix(7)).
    Sandbox::with(&[Cap::SYS_ADMIN]).enter()?;
    await_ready(&from).or_refuse(Refusal::Nspawn, || "read a notification".into())?;
    send_ready(&to, main).or_refuse(Refusal::Nspawn, || "notify systemd".into())
}

fn sockets() -> io::Result<(UnixDatagram, UnixDatagram)> {
    let from = io::stdin().as_fd().try_clone_to_owned()?;
    let to = UnixDatagram::unbound()?;
    to.connect(std::env::var_os(NOTIFY_SOCKET).unwrap_or_default())?;
    Ok((UnixDatagram::from(from), to))
}

/// Reads notifications until one says that the container is ready.
fn await_ready(from: &UnixDatagram) -> io::Result<()> {
    let mut text = [0; MAX_BYTES];
    loop {
        let length = from.recv(&mut text)?;
        if text[..length]
            .split(|byte| *byte == b'\n')
            .any(|line| line == READY)
        {
            return Ok(());
        }
    }
}

/// Sends the notification with the main process as its sender, because `NotifyAccess=main` accepts no
/// other.
fn send_ready(to: &UnixDatagram, main: Pid) -> nix::Result<()> {
    let sender = UnixCredentials::from(libc::ucred {
        pid: main.as_raw(),
        uid: 0,
        gid: 0,
    });
    let credentials = [ControlMessage::ScmCredentials(&sender)];
    let text = [IoSlice::new(READY)];
    sendmsg::<()>(to.as_raw_fd(), &text, &credentials, MsgFlags::empty(), None).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_line_says_that_a_container_is_ready() {
        let (from, to) = UnixDatagram::pair().unwrap();
        for text in ["STATUS=READY=1", "READY=10", "\nSTATUS=x", ""] {
            to.send(text.as_bytes()).unwrap();
        }
        to.send(b"STATUS=Container running.\nREADY=1").unwrap();
        to.send(b"STATUS=later").unwrap();
        await_ready(&from).unwrap();
        let mut rest = [0; MAX_BYTES];
        assert_eq!(from.recv(&mut rest).unwrap(), b"STATUS=later".len());
    }
}
