//! The program that gives both ends of a container's link their addresses, and the container its part of the kernel's
//! shared tables, when the container is ready.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use capctl::caps::Cap;
use nix::errno::Errno;
use nix::unistd::Pid;

use super::error::{OrRefuse, Refusal, RootError};
use super::ready::{self, Parent};
use super::sandbox::Sandbox;
use super::{bounds, link, trust};
use crate::config::Place;

/// Waits for the container's `READY=1` on standard input, gives both ends of the veth their addresses, the container its
/// route, and the container's user namespace its maxima. Then it tells the relay on standard output.
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
    let leader = leader(main)
        .or_refuse(Refusal::Network, || {
            format!("find the container's init among the children of process {main}")
        })?
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

/// Returns the container's init: the child of nspawn that is process 1 of a namespace.
fn leader(main: Pid) -> io::Result<Option<u32>> {
    let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children"))?;
    for child in children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
    {
        let status = match fs::read_to_string(format!("/proc/{child}/status")) {
            Ok(status) => status,
            Err(why) if is_gone(&why) => continue,
            Err(why) => return Err(why),
        };
        if is_init(&status) {
            return Ok(Some(child));
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
