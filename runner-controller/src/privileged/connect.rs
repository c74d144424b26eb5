//! The program that gives both ends of a container's link their addresses, and the container its part of the kernel's
//! shared tables, when the container is ready.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use capctl::caps::Cap;
use nix::errno::Errno;
use nix::unistd::Pid;

use super::error::{OrRefuse, Refusal, RootError};
use super::held_mounts::{self, MAX_PROCESSES};
use super::ready::{self, Parent};
use super::sandbox::Sandbox;
use super::{bounds, link, trust};
use crate::config::Place;

/// Hands the container's mounts to their holder, and waits for the container's `READY=1` on standard input. Then it gives
/// both ends of the veth their addresses, the container its route, and the container's user namespace its maxima, and
/// tells the relay on standard output.
///
/// The relay tells systemd, so the unit becomes active after that, and the daemon answers only an active unit. So no
/// runner starts without a network.
pub fn connect(place: Place<'_>) -> Result<(), RootError> {
    trust::own_unit(&place.id())?;
    let Some(main) = Parent::follow()? else {
        return Ok(());
    };
    let wait = || "wait for systemd-nspawn's notifications on standard input".to_owned();
    let from = io::stdin().as_fd().try_clone_to_owned();
    let from = UnixDatagram::from(from.or_refuse(Refusal::Network, wait)?);
    ready::await_namespaces(&from).or_refuse(Refusal::Network, wait)?;
    let main = main.pid();
    let find = || format!("find the container's init among the children of process {main}");
    let children = children(main).or_refuse(Refusal::Network, find)?;
    let leader = leader(&children)
        .or_refuse(Refusal::Network, find)?
        .ok_or_else(|| {
            RootError::plain(
                Refusal::Network,
                format!("process {main} has no child that is a container's init: the container has ended"),
            )
        })?;
    let namespace = |kind: &str| {
        let path = format!("/proc/{leader}/ns/{kind}");
        File::open(&path).or_refuse(Refusal::Network, || format!("open {path}"))
    };
    let parts = &place.pool.limits.shared;
    let (netns, userns) = (namespace("net")?, namespace("user")?);
    if held_mounts::are_held(place.pool) {
        hold_mounts(place, &namespace("mnt")?, main, &children);
    }
    // With the namespaces open, no other file of the host is needed. Notifications may have text of the container.
    Sandbox::with(&[Cap::NET_ADMIN, Cap::SYS_ADMIN])
        .writes("/proc/sys/net")
        .writes(bounds::SETTINGS)
        .enter()?;
    ready::await_ready(&from).or_refuse(Refusal::Network, wait)?;
    link::connect(&place, netns)?;
    bounds::set(&userns, parts)?;
    ready::tell_ready().or_refuse(Refusal::Network, || "tell the relay".into())
}

/// Hands the mounts of the container to their holder, with all processes that use them.
///
/// A failure costs the slot time after the runner's end, so it fails no start.
fn hold_mounts(place: Place<'_>, namespace: &File, main: Pid, children: &[Pid]) {
    let all = std::iter::once(&main).chain(children).take(MAX_PROCESSES);
    // A relay may have ended.
    let processes: Vec<OwnedFd> = all
        .filter_map(|pid| ready::open_process(*pid).ok())
        .collect();
    let socket = place.config.mounts_socket();
    let id = place.id();
    if let Err(error) = held_mounts::send(&socket, &id, namespace.as_fd(), &processes) {
        stdio::error(format_args!(
            "runner-controller: cannot hand the mounts of {id} to {}: {error}; the slot waits for their removal after this runner",
            socket.display()
        ));
    }
}

/// Returns the children of nspawn: the container's init, and the programs that the launcher started.
fn children(main: Pid) -> io::Result<Vec<Pid>> {
    let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children"))?;
    let children = children.split_whitespace();
    let numbers = children.filter_map(|pid| pid.parse().ok());
    Ok(numbers.map(Pid::from_raw).collect())
}

/// Returns the container's init: the child of nspawn that is process 1 of a namespace.
fn leader(children: &[Pid]) -> io::Result<Option<Pid>> {
    for child in children {
        let status = match fs::read_to_string(format!("/proc/{child}/status")) {
            Ok(status) => status,
            Err(why) if is_gone(&why) => continue,
            Err(why) => return Err(why),
        };
        if is_init(&status) {
            return Ok(Some(*child));
        }
    }
    Ok(None)
}

/// Returns true if a process ended before or while its file in `/proc` was read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

/// Returns true if this `/proc/<pid>/status` is of process 1 in an inner namespace.
///
/// `NSpid:` lists a process's ids from our namespace to its innermost.
pub(crate) fn is_init(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .is_some_and(|ids| {
            let ids: Vec<&str> = ids.split_whitespace().collect();
            ids.len() > 1 && ids.last() == Some(&"1")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_is_process_one_of_an_inner_namespace() {
        assert!(is_init("Name:\tsystemd\nNSpid:\t812\t1\n"));
        assert!(is_init("NSpid:\t4000\t812\t1\n"));
        assert!(!is_init("NSpid:\t812\n"));
        assert!(!is_init("NSpid:\t1\n"));
        assert!(!is_init("NSpid:\t812\t11\n"));
        assert!(!is_init(""));
    }
}
