//! The daemon's own unit.

use std::path::Path;

use super::file::{HostFile, Program};
use crate::config::{Config, DAEMON_USER};
use crate::firewall::FIREWALL_UNIT;
use crate::http;

/// File descriptors that systemd keeps for a slot: its socket, its FIFO, a waiting connection, and
/// the mark that it was answered.
const KEPT_PER_SLOT: usize = 4;
/// And for the daemon itself, with room for what a later version keeps.
const KEPT_BESIDES: usize = 8;

pub(super) fn files(config: &Config, program: Program<'_>) -> Vec<HostFile> {
    vec![HostFile::unit(
        "runner-controller.service",
        service(config, program),
    )]
}

fn service(config: &Config, program: Program<'_>) -> String {
    let sweep = program.call("sweep-unowned");
    let run = program.call("run");
    let firewall = FIREWALL_UNIT;
    let login = &config.github.login;
    let (secret, file) = (login.credential(), login.file().display());
    let api_token = config
        .api_token_file
        .as_ref()
        .map(|file| format!("LoadCredential={}:{}\n", http::CREDENTIAL, file.display()))
        .unwrap_or_default();
    let (slots, api) = (config.slots_dir(), config.api_dir());
    let (slots, api) = (slots.display(), api.display());
    let kept = config.slots().count() * KEPT_PER_SLOT + KEPT_BESIDES;
    let state = state_directory(&config.state_dir);
    format!(
        "\
[Unit]
Description=Warm pool of CI runner containers
Requires=dbus.socket
After=dbus.socket network-online.target {firewall} systemd-tmpfiles-setup.service
Wants=network-online.target {firewall}
# Whatever made it fail, a pool that comes back late is better than one that stays away.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
# As root, and no reason to stay away if it fails: directories of slots that are new in the
# configuration, and a sweep of those that no pool has any more.
ExecStartPre=-+systemd-tmpfiles --create runner-controller.conf
ExecStartPre=-+{sweep}
ExecStart={run}
ExecReload=kill -HUP $MAINPID
Restart=always
RestartSec=1s
RestartSteps=6
RestartMaxDelaySec=60s
TimeoutStartSec=60s
TimeoutStopSec=30s
WatchdogSec=30s
# The slots' sockets and the containers that wait on them survive the daemon here.
FileDescriptorStoreMax={kept}
FileDescriptorStorePreserve=yes
LoadCredential={secret}:{file}
{api_token}
User={DAEMON_USER}
Group={DAEMON_USER}
{state}
# Closed: everything that is not written below as open.
AmbientCapabilities=
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
PrivateIPC=yes
UMask=0077
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
MemoryMax=512M
TasksMax=64
LimitNOFILE=65536

# Open, and why:
# it makes the slots' sockets and its own;
ReadWritePaths={slots} {api}
# it talks to GitHub, and to systemd and the containers over Unix sockets. No PrivateNetwork=, and no
# IPAddressDeny=, since GitHub's addresses are GitHub's to change;
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
# no PrivateUsers=: every container's root would look like nobody, and the peer's uid is what tells
# who asks for a config;
PrivateUsers=no
# no ProcSubset=pid: admission reads the host's memory and load from /proc;
ProcSubset=all
# no RootDirectory=: the bus, journald and the slots' sockets are the host's. And ProtectClock= by itself
# lets the real-time clock be read.

[Install]
WantedBy=multi-user.target
"
    )
}

/// systemd makes a state directory below `/var/lib`; elsewhere tmpfiles does.
fn state_directory(path: &Path) -> String {
    match path.strip_prefix("/var/lib") {
        Ok(name) => format!(
            "StateDirectory={}\nStateDirectoryMode=0700\n",
            name.display()
        ),
        Err(_) => format!("ReadWritePaths={}\n", path.display()),
    }
}
