//! The Nix daemon of a container in an image other than NixOS. The files are in `guest/nix/`. NixOS has
//! units for all but `nix-registration.service`.

use std::io;

use super::accounts::ensure_build_users;
use super::tree::Tree;

const SOCKET: &str = "nix-daemon.socket";

/// Units for /etc, which take precedence over those of a package in /usr.
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

/// Paths of the daemon. The unit searches the same directories.
pub(super) const DAEMONS: [&str; 3] = [
    "usr/local/bin/nix-daemon",
    "usr/bin/nix-daemon",
    "nix/var/nix/profiles/default/bin/nix-daemon",
];

/// Returns true if the image has Nix.
pub(super) fn is_installed(tree: &Tree) -> bool {
    DAEMONS.iter().any(|program| tree.exists(program))
}

/// Installs the units and the build users.
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
