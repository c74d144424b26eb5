//! The session of the runner's user: its runtime directory, logins, and systemd-logind.

use std::io;

use super::accounts::JobUser;
use super::tree::Tree;

/// Installs what a job needs of a login session, at no cost for the boot.
pub(super) fn install(tree: &Tree, runner: JobUser) -> io::Result<()> {
    let JobUser { uid, gid } = runner;
    let dir = format!("/run/user/{uid}");
    tree.file(
        "etc/tmpfiles.d/50-github-runner.conf",
        0o644,
        &format!("d {dir} 0700 {uid} {gid}\n"),
    )?;
    tree.file(
        "etc/systemd/system/github-runner.service.d/50-session.conf",
        0o644,
        &format!("[Service]\nEnvironment=XDG_RUNTIME_DIR={dir}\n"),
    )?;
    // /run/nologin refuses logins. The unit that removes it at the end of a boot is masked, so it is not
    // created (systemd-user-sessions.service(8)).
    tree.link("etc/tmpfiles.d/systemd-nologin.conf", "/dev/null")?;
    // D-Bus starts systemd-logind for its first client, for example `shutdown +60` or a login over ssh. At
    // boot it would take 30 ms. This masks the dependency, not the unit (systemd.unit(5)).
    tree.link(
        "etc/systemd/system/multi-user.target.wants/systemd-logind.service",
        "/dev/null",
    )
}
