//! Docker in an image other than NixOS. The daemon starts with its first client, which may be a job.

use std::io;

use super::accounts::add_to_group;
use super::tree::Tree;

const SOCKET: &str = "docker.socket";

/// Paths of the daemon in packages.
pub(super) const DAEMONS: [&str; 3] = [
    "usr/local/bin/dockerd",
    "usr/bin/dockerd",
    "usr/sbin/dockerd",
];

/// Directories in which packages have their units.
const UNIT_DIRS: [&str; 3] = [
    "etc/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
];

/// Units that packages enable. Each costs a second of every boot, needed or not.
const NOT_AT_BOOT: [&str; 2] = ["docker.service", "containerd.service"];

/// Limit of the daemons and of their containers. systemd lowers it to that of the pool, which has no maximum
/// with `docker = true`.
const LOCKED_MEMORY: &str = "\
# A container may raise its limit, as with --ulimit memlock=-1:-1.
[Service]
LimitMEMLOCK=8M:infinity
";

/// Returns the path of the socket's unit, if the image has Docker.
pub(super) fn socket(tree: &Tree) -> Option<String> {
    if !DAEMONS.iter().any(|program| tree.exists(program)) {
        return None;
    }
    UNIT_DIRS
        .iter()
        .map(|dir| format!("{dir}/{SOCKET}"))
        .find(|unit| tree.exists(unit))
}

/// Lets jobs use Docker, and keeps the daemon from starting at boot.
pub(super) fn install(tree: &Tree, socket: &str) -> io::Result<()> {
    // The group owns the socket. Its members are as good as root, in the container alone.
    add_to_group(tree, "docker")?;
    tree.link(
        &format!("etc/systemd/system/sockets.target.wants/{SOCKET}"),
        &format!("/{socket}"),
    )?;
    for unit in NOT_AT_BOOT {
        tree.file(
            &format!("etc/systemd/system/{unit}.d/50-github-runner.conf"),
            0o644,
            LOCKED_MEMORY,
        )?;
        // This masks the dependency, not the unit (systemd.unit(5)).
        tree.link(
            &format!("etc/systemd/system/multi-user.target.wants/{unit}"),
            "/dev/null",
        )?;
    }
    Ok(())
}
