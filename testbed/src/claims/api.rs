//! Access to the daemon's API: by the peer's credentials on the Unix socket, by a token on TCP.

use anyhow::{Context, Result, ensure};
use status::DaemonState;

use super::common::{SOON, ensure_says};
use super::fixture::{SMALL, small};
use super::suite::{Suite, suite};
use crate::lab::{DAEMON, Lab};

pub(super) const SUITE: Suite = suite![SMALL;
    only_root_and_the_group_ask_for_a_change,
    a_change_over_tcp_takes_the_token,
];

const CONTROLLER: &str = "runner-controller";
const GROUP: &str = "runner-controller";
/// An unprivileged user of the host.
const USER: &str = "somebody";
const PORT: u16 = 9817;
const TOKEN: &str = "5e1f0c8d9b7a4e6f5e1f0c8d9b7a4e6f";
const TOKEN_FILE: &str = "/etc/runner-controller/api-token";

/// Runs one of our commands as that user. Returns true if it succeeded, and its output.
fn as_somebody(lab: &Lab, command: &str) -> Result<(bool, String)> {
    let output = lab.host().output(&[
        "setpriv",
        &format!("--reuid={USER}"),
        &format!("--regid={USER}"),
        "--init-groups",
        CONTROLLER,
        command,
    ])?;
    let said = [output.stdout, output.stderr].concat();
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

fn only_root_and_the_group_ask_for_a_change(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let host = lab.host();
    host.output(&["userdel", USER])?;
    host.run(&["useradd", "--user-group", USER])?;
    let outcome = as_stranger_and_member(lab);
    host.run(&["userdel", USER])?;
    host.run(&["systemd-tmpfiles", "--create"])?;
    host.run(&["systemctl", "restart", DAEMON])?;
    outcome?;
    lab.api("POST", "/undrain")?;
    lab.await_settled(SOON).map(drop)
}

fn as_stranger_and_member(lab: &Lab) -> Result<()> {
    let host = lab.host();
    for command in ["status", "drain"] {
        let (well, said) = as_somebody(lab, command)?;
        ensure!(!well, "a stranger may ask for {command}: {said}");
        ensure_says(&said, &["join the group"])?;
    }
    // With open modes, every user may read.
    host.sh(
        "chmod 0755 /run/runner-controller/api; chmod 0666 /run/runner-controller/api/api.sock",
    )?;
    let (well, said) = as_somebody(lab, "status")?;
    ensure!(well, "{said}");
    for command in ["drain", "undrain"] {
        let (well, said) = as_somebody(lab, command)?;
        ensure!(!well, "a stranger may {command}: {said}");
        ensure_says(&said, &["403", "join the group"])?;
    }
    ensure!(
        lab.look()?.state == DaemonState::Running,
        "it drains all the same"
    );
    ensure_says(&lab.journal(DAEMON, 20), &["/drain refused to uid"])?;
    host.sh(
        "chmod 0750 /run/runner-controller/api; chmod 0660 /run/runner-controller/api/api.sock",
    )?;
    host.run(&["usermod", "--append", "--groups", GROUP, USER])?;
    for (command, states) in [
        (
            "drain",
            [DaemonState::Draining, DaemonState::Drained].as_slice(),
        ),
        ("undrain", &[DaemonState::Running]),
    ] {
        let (well, said) = as_somebody(lab, command)?;
        ensure!(well, "a member may not {command}: {said}");
        ensure!(states.contains(&lab.look()?.state), "it did not {command}");
    }
    Ok(())
}

/// Returns the status of one request over TCP from the host itself.
fn over_tcp(lab: &Lab, method: &str, path: &str, headers: &str) -> Result<u16> {
    let said = lab.host().run(&[
        "timeout",
        "10",
        "bash",
        "-c",
        &format!(
            "exec 3<>/dev/tcp/127.0.0.1/{PORT}; \
             printf '{method} {path} HTTP/1.1\\r\\nhost: x\\r\\n{headers}\\r\\n' >&3; cat <&3"
        ),
    ])?;
    let code = said.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.with_context(|| format!("no answer: {said}"))
}

fn a_change_over_tcp_takes_the_token(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let host = lab.host();
    host.write(TOKEN_FILE, TOKEN.as_bytes(), 0o600)?;
    let mut config = small(lab.sim().api_url());
    config.top = format!("listen = [\"127.0.0.1:{PORT}\"]\napi_token_file = \"{TOKEN_FILE}\"");
    lab.install(&config)?;
    host.run(&["systemctl", "restart", DAEMON])?;
    let outcome = with_and_without(lab);
    lab.install(&small(lab.sim().api_url()))?;
    host.run(&["systemctl", "restart", DAEMON])?;
    lab.api("POST", "/undrain")?;
    outcome?;
    ensure!(
        over_tcp(lab, "GET", "/health", "").is_err(),
        "it listens without the setting"
    );
    lab.await_settled(SOON).map(drop)
}

fn with_and_without(lab: &Lab) -> Result<()> {
    let good = format!("authorization: Bearer {TOKEN}\\r\\n");
    let wrong = "authorization: Bearer 5e1f0c8d9b7a4e6f5e1f0c8d9b7a4e60\\r\\n";
    for (method, path, headers, status) in [
        ("GET", "/status", "", 200),
        ("POST", "/drain", "", 401),
        ("POST", "/drain", wrong, 401),
        ("GET", "/drain", good.as_str(), 405),
        ("DELETE", "/status", good.as_str(), 405),
    ] {
        let found = over_tcp(lab, method, path, headers)?;
        ensure!(found == status, "{method} {path} {headers}: {found}");
        ensure!(
            lab.look()?.state == DaemonState::Running,
            "it drains after {method} {path}"
        );
    }
    let found = over_tcp(lab, "POST", "/drain", &good)?;
    ensure!(found == 202, "{found}");
    ensure!(
        lab.look()?.state != DaemonState::Running,
        "it does not drain"
    );
    // The token is only in its file.
    let shown = lab.host().run(&["systemctl", "show", DAEMON])?;
    let said = lab.journal(DAEMON, 100);
    ensure!(
        !shown.contains(TOKEN) && !said.contains(TOKEN),
        "the token is shown"
    );
    Ok(())
}
