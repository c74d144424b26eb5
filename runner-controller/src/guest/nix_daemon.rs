//! The container's own Nix daemon in an image that is no NixOS. The files are in `guest/nix/`; NixOS
//! has units of its own for all but `nix-registration.service`.

use std::io;

use super::accounts::ensure_build_users;
use super::tree::Tree;

const SOCKET: &str = "nix-daemon.socket";

/// In /etc, which wins over what a distribution's package has in /usr.
const UNITS: [(&str, &str); 3] = [
    (SOCKET, include_str!("../../guest/nix/nix-daemon.socket")),
    (
        "nix-daemon.service",
        include_str!("../../guest/nix/nix-daemon.service"),
    ),
    (
        "nix-registration.service",
        include_str!("../../guest/nix/nix-registration.service"),
    ),
];

/// Where the daemon may be; the unit looks in the same places.
pub(super) const DAEMONS: [&str; 3] = [
    "usr/local/bin/nix-daemon",
    "usr/bin/nix-daemon",
    "nix/var/nix/profiles/default/bin/nix-daemon",
];

/// True if the image has a Nix.
pub(super) fn is_installed(tree: &Tree) -> bool {
    DAEMONS.iter().any(|program| tree.exists(program))
}

/// Installs the units and the users that builds run as.
pub(super) fn install(tree: &Tree) -> io::Result<()> {
    ensure_build_users(tree)?;
    for (name, text) in UNITS {
        tree.file(&format!("etc/systemd/system/{name}"), 0o644, text)?;
    }
    tree.link(
        &format!("etc/systemd/system/sockets.target.wants/{SOCKET}"),
        &format!("/etc/systemd/system/{SOCKET}"),
    )
}
