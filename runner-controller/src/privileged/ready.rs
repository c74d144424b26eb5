//! The two programs between systemd-nspawn and the host's systemd: `connect` waits for the container, and the relay
//! passes on one `READY=1`, and no text of the container.
//!
//! ```text
//! systemd-nspawn ──notifications──▸ connect ──READY=1──▸ relay ──READY=1──▸ the host's systemd
//! ```
//! nspawn forwards every status text of the container's process 1. The host's systemd reads its notify
//! socket before its bus, so one container could silence it for all pools. Both programs are children of the launcher. As
//! `ExecStartPost=`, `connect` would be one more start of a program by systemd, which each runner would wait for.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use capctl::caps::Cap;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixCredentials, sendmsg};
use nix::unistd::{Pid, getppid};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use super::error::{OrRefuse, Refusal, RootError};
use super::sandbox::Sandbox;
use super::trust;
use crate::pool::SlotId;

/// Variable with the path of the notify socket (`sd_notify(3)`).
pub(crate) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// Name of the relay's command.
const COMMAND: &str = "relay-ready";
/// Child of the unit's control group into which nspawn moves itself. A process in the unit's own group
/// would keep nspawn from giving the container its controllers (`nspawn-cgroup.c`).
const SUPERVISOR: &str = "supervisor";
/// Notification that is passed on.
const READY: &[u8] = b"READY=1";
/// Maximum size of a notification that is read. nspawn's are shorter.
const MAX_BYTES: usize = 4096;

/// Starts `connect` and the relay as children of this process. nspawn, which this process becomes, notifies the socket.
pub(crate) fn start(id: &SlotId, config: &Path, socket: &Path) -> Result<(), RootError> {
    try_start(id, config, socket).or_refuse(Refusal::Nspawn, || {
        format!("start the relay of {}", socket.display())
    })
}

fn try_start(id: &SlotId, config: &Path, socket: &Path) -> io::Result<()> {
    let notifications = UnixDatagram::bind(socket)?;
    let (connected, connect) = io::pipe()?;
    let program = std::env::current_exe()?;
    start_beside(
        Command::new(&program)
            .arg("--config")
            .arg(config)
            .args(["connect", id.pool.as_str(), &id.slot.to_string()])
            .stdin(OwnedFd::from(notifications))
            .stdout(connect),
    )?;
    start_beside(Command::new(program).arg(COMMAND).stdin(connected))
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

/// The container's supervisor, systemd-nspawn, which is the parent of a program that the launcher started.
#[derive(Debug)]
pub(super) struct Parent(Pid);

impl Parent {
    /// Lets this process end with its parent. Returns `None` if the parent has ended.
    pub(super) fn follow() -> Result<Option<Self>, RootError> {
        let parent = getppid();
        set_pdeathsig(Signal::SIGKILL)
            .or_refuse(Refusal::Nspawn, || "follow nspawn's end".into())?;
        Ok((getppid() == parent).then_some(Self(parent)))
    }

    /// Returns the number of the process.
    pub(super) fn pid(&self) -> Pid {
        self.0
    }
}

/// Waits until `connect` is done, sends `READY=1` to systemd in the name of the parent process, and ends. Ends with its
/// parent as well.
///
/// Ends the container if `connect` failed, as systemd does after a failed `ExecStartPost=`.
///
/// After SIGTERM, nspawn asks the container's init to shut down, which takes seconds. An init that has only just begun does
/// not see that, and the container would run until the boot's timeout. It has no config, so SIGKILL loses nothing. systemd
/// then kills all other processes of the unit.
pub fn relay_ready() -> Result<(), RootError> {
    let Some(main) = Parent::follow()? else {
        return Ok(());
    };
    let refuse = || format!("open the socket in {NOTIFY_SOCKET}");
    let to = notify_socket().or_refuse(Refusal::Nspawn, refuse)?;
    let file = open_process(main.pid()).or_refuse(Refusal::Nspawn, || "open nspawn".into())?;
    // Only this capability lets a process name another one as the sender (unix(7)).
    Sandbox::with(&[Cap::SYS_ADMIN]).signals().enter()?;
    let mut said = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    BufReader::new(io::stdin().take(limit))
        .read_until(b'\n', &mut said)
        .or_refuse(Refusal::Nspawn, || "read whether the network is up".into())?;
    if says_ready(&said) {
        return send_ready(&to, main.pid()).or_refuse(Refusal::Nspawn, || "notify systemd".into());
    }
    match pidfd_send_signal(&file, rustix::process::Signal::KILL) {
        // It ended first, and took `connect` with it.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(RootError::caused(
            Refusal::Network,
            "end a container without a network",
            error,
        )),
    }
}

fn notify_socket() -> io::Result<UnixDatagram> {
    let to = UnixDatagram::unbound()?;
    to.connect(std::env::var_os(NOTIFY_SOCKET).unwrap_or_default())?;
    Ok(to)
}

/// Opens a process.
pub(super) fn open_process(pid: Pid) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Waits for nspawn's first notification, which it sends when the container's namespaces exist, and does not read it.
pub(super) fn await_namespaces(from: &UnixDatagram) -> io::Result<()> {
    let mut set = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut set, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop).map_err(Into::into),
        }
    }
}

/// Reads notifications until one says that the container is ready.
pub(super) fn await_ready(from: &UnixDatagram) -> io::Result<()> {
    let mut text = [0; MAX_BYTES];
    loop {
        let length = from.recv(&mut text)?;
        if says_ready(&text[..length]) {
            return Ok(());
        }
    }
}

/// Tells the relay that the container is ready, and its network.
pub(super) fn tell_ready() -> io::Result<()> {
    let mut relay = io::stdout();
    relay.write_all(READY)?;
    relay.write_all(b"\n")?;
    relay.flush()
}

fn says_ready(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| line == READY)
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
