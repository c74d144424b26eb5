//! Docker in an image that is no NixOS: its daemon starts with its first client, who may be the job's
//! user.

use std::io;

use super::accounts::add_to_group;
use super::tree::Tree;

const SOCKET: &str = "docker.socket";

/// Where the daemon may be.
pub(super) const DAEMONS: [&str; 3] = [
    "usr/local/bin/dockerd",
    "usr/bin/dockerd",
    "usr/sbin/dockerd",
];

/// Where a package puts its units.
const UNIT_DIRS: [&str; 3] = [
    "etc/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
];

/// What packages enable: each a second of every boot, needed or not.
const NOT_AT_BOOT: [&str; 2] = ["docker.service", "containerd.service"];

/// The path of its socket's unit, if the image has Docker.
pub(super) fn socket(tree: &Tree) -> Option<String> {
    if !DAEMONS.iter().any(|program| tree.exists(program)) {
        return None;
    }
    UNIT_DIRS
        .iter()
        .map(|dir| format!("{dir}/{SOCKET}"))
        .find(|unit| tree.exists(unit))
}

/// Lets the job's user use it, and nobody start it earlier.
pub(super) fn install(tree: &Tree, socket: &str) -> io::Result<()> {
    // The one that owns the socket; to be in it is to be root, here in the container.
    add_to_group(tree, "docker")?;
    tree.link(
        &format!("etc/systemd/system/sockets.target.wants/{SOCKET}"),
        &format!("/{socket}"),
    )?;
    for unit in NOT_AT_BOOT {
        // Masks the wish and not the unit (systemd.unit(5)).
        tree.link(
            &format!("etc/systemd/system/multi-user.target.wants/{unit}"),
            "/dev/null",
        )?;
    }
    Ok(())
}
