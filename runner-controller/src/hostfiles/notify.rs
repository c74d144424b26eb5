//! The socket and the service of notifications: systemd starts the command, without privileges.

use std::path::Path;

use super::file::{CLOSED_KERNEL, HostFile, UNPRIVILEGED, quoted, span};
use crate::config::{Config, DAEMON_USER, NotifyConfig};

/// Socket to which the daemon writes the documents.
pub(super) const SOCKET_UNIT: &str = "runner-controller-notify.socket";
/// Service that reads one document.
pub(super) const SERVICE_UNIT: &str = "runner-controller-notify@.service";

/// Returns the units of `[notify]`; none without the table.
pub(super) fn files(config: &Config) -> Vec<HostFile> {
    let Some(notify) = &config.notify else {
        return Vec::new();
    };
    vec![
        HostFile::unit(SOCKET_UNIT, socket(config)),
        HostFile::unit(SERVICE_UNIT, service(notify)),
    ]
}

fn socket(config: &Config) -> String {
    let path = config.notify_socket();
    let path = path.display();
    format!(
        "\
[Unit]
Description=Notifications of runner-controller
# The daemon wants it, so it starts with the daemon.

[Socket]
ListenStream={path}
# Only the daemon may tell the command anything.
SocketUser={DAEMON_USER}
SocketMode=0600
RemoveOnStop=yes
# One service for each document.
Accept=yes
MaxConnections=4
"
    )
}

fn service(notify: &NotifyConfig) -> String {
    let words = notify.command.iter();
    let words = words.map(|word| quoted(Path::new(word)));
    let command = words.collect::<Vec<_>>().join(" ");
    let timeout = span(notify.timeout);
    format!(
        "\
[Unit]
Description=Notification of runner-controller
CollectMode=inactive-or-failed

[Service]
# The document is on the standard input. The output goes to the journal.
ExecStart={command}
StandardInput=socket
StandardOutput=journal
StandardError=journal
Type=exec
RuntimeMaxSec={timeout}
TimeoutStopSec=5s
# A user that exists only while the command runs.
DynamicUser=yes
{UNPRIVILEGED}
{CLOSED_KERNEL}
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
LockPersonality=yes
RemoveIPC=yes
KeyringMode=private
UMask=0077
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
MemoryMax=256M
TasksMax=64
LimitCORE=0
# A secret of the command belongs in a drop-in, as LoadCredential=.
"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::testing;

    #[test]
    fn the_units_are_there_with_the_table_alone() {
        let mut config = testing::config();
        assert_eq!(files(&config), []);
        config.notify = Some(NotifyConfig {
            command: vec!["/opt/a b/tell".into(), "100%".into(), String::new()],
            events: std::collections::BTreeSet::new(),
            timeout: Duration::from_secs(7),
        });
        let files = files(&config);
        let [socket, service] = &files[..] else {
            panic!("{files:?}");
        };
        let path = config.notify_socket();
        let listens = format!("ListenStream={}\n", path.display());
        assert!(socket.text.contains(&listens), "{}", socket.text);
        // Each word of the command is one word of the unit.
        let starts = "ExecStart=\"/opt/a b/tell\" \"100%%\" \"\"\n";
        assert!(service.text.contains(starts), "{}", service.text);
        assert!(service.text.contains("\nRuntimeMaxSec=7s\n"));
        assert!(service.text.contains("\nDynamicUser=yes\n"));
    }
}
