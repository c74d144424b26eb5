//! Unit of the process that owns the firewall's table.

use super::FIREWALL_UNIT;
use crate::config::Config;
use crate::hostfiles::file::{CLOSED_KERNEL, HostFile, Program};

/// Returns the firewall's files.
pub(crate) fn files(config: &Config, program: Program<'_>) -> Vec<HostFile> {
    vec![HostFile::unit(FIREWALL_UNIT, unit(config, program))]
}

fn unit(config: &Config, program: Program<'_>) -> String {
    let own = program.call("firewall");
    let dir = config.firewall_dir();
    let dir = dir.display();
    format!(
        "\
[Unit]
Description=Firewall of the CI runners
After=systemd-modules-load.service systemd-sysctl.service systemd-tmpfiles-setup.service
Before=runner-controller.service
# A firewall that comes back late is better than one that stays away.
StartLimitIntervalSec=0
# Containers outlive `systemctl isolate`, and so does their firewall.
IgnoreOnIsolate=yes

[Service]
# The kernel lets only this process change the table. The table stays when the process ends, so a
# stop or a restart of this unit opens nothing.
Type=notify-reload
NotifyAccess=main
# As root and first: the directory of the report.
ExecStartPre=-+systemd-tmpfiles --create runner-controller.conf
ExecStart={own}
Restart=always
# The same delay each time, because systemd never forgets earlier restarts.
RestartSec=500ms
TimeoutStartSec=30s
TimeoutStopSec=10s
# Only the main process gets SIGTERM. It would take the end of nft for a failure and load the table again.
KillMode=mixed
# The kernel kills it last: without it another program can remove the table.
OOMScoreAdjust=-1000

# nft changes the rules, and lists them in a network namespace that holds nothing else.
CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_ADMIN
RestrictNamespaces=net
RestrictAddressFamilies=AF_NETLINK AF_UNIX
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=-{dir}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
{CLOSED_KERNEL}
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0022
MemoryMax=256M
TasksMax=16

[Install]
WantedBy=multi-user.target
"
    )
}
