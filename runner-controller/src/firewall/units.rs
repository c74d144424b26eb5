//! The units that load and check the table, rendered from the configuration.

use std::time::Duration;

use super::rules::{FIREWALL_UNIT, TABLE, table};
use crate::config::Config;
use crate::hostfiles::file::{HostFile, Program, span};

/// Unit that checks the table once.
const CHECK_UNIT: &str = "runner-controller-firewall-check.service";
/// Timer that repeats the check.
pub(crate) const CHECK_TIMER: &str = "runner-controller-firewall-check.timer";
/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// File from which nft loads the table.
const RULES_FILE: &str = "/etc/runner-controller/firewall.nft";

/// Returns the firewall's files.
pub(crate) fn files(config: &Config, program: Program<'_>) -> Vec<HostFile> {
    vec![
        HostFile::new(RULES_FILE, table(config)),
        HostFile::unit(FIREWALL_UNIT, firewall_unit(config, program)),
        HostFile::unit(CHECK_UNIT, check_unit(config, program)),
        HostFile::unit(CHECK_TIMER, check_timer()),
    ]
}

fn firewall_unit(config: &Config, program: Program<'_>) -> String {
    let check = program.call("check-firewall");
    let closed = closed(config);
    format!(
        "\
[Unit]
Description=Firewall of the CI runners
# Its rules are gone when nftables.service flushes everything, so they come back with it.
After=nftables.service systemd-modules-load.service systemd-sysctl.service systemd-tmpfiles-setup.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
Before=runner-controller.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=nft -f {RULES_FILE}
ExecReload=nft -f {RULES_FILE}
ExecStop=-nft delete table inet {TABLE}
# The daemon is told at once. What it is told fails no unit.
ExecStartPost=-{check}
ExecReload=-{check}
ExecStopPost=-{check}

{closed}
[Install]
WantedBy=multi-user.target
"
    )
}

fn check_unit(config: &Config, program: Program<'_>) -> String {
    let check = program.call("check-firewall");
    let closed = closed(config);
    format!(
        "\
[Unit]
Description=Check of the CI runners' firewall
After={FIREWALL_UNIT} systemd-tmpfiles-setup.service
# However often it is asked for: a check that is refused looks like one that never came.
StartLimitIntervalSec=0

[Service]
Type=oneshot
# Compares and reports. It repairs nothing: whoever changed the rules should hear of it, and a table
# that is put back every few seconds would hide that it is taken away as often.
ExecStart={check}
TimeoutStartSec=30s
# Its own words are warnings; that it ran is no news.
SyslogLevel=warning
LogLevelMax=notice

{closed}"
    )
}

/// What both units keep of root.
fn closed(config: &Config) -> String {
    let dir = config.firewall_dir();
    let dir = dir.display();
    format!(
        "\
# nft reads the rules, and loads them a second time in a network namespace of its own.
CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_ADMIN
RestrictNamespaces=net
RestrictAddressFamilies=AF_NETLINK AF_UNIX
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=-{dir}
ProtectHome=read-only
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
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0022
MemoryMax=256M
TasksMax=16
"
    )
}

fn check_timer() -> String {
    let every = span(CHECK_INTERVAL);
    format!(
        "\
[Unit]
Description=Checks of the CI runners' firewall
# It belongs to the containers, which run on while the daemon is away.
After={FIREWALL_UNIT}

[Timer]
OnActiveSec=0
OnUnitInactiveSec={every}
AccuracySec=1s

[Install]
WantedBy=multi-user.target
"
    )
}
