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
    let hardening = hardening(config);
    format!(
        "\
[Unit]
Description=Firewall of the CI runners
# nftables.service flushes the whole ruleset, so this unit restarts and reloads with it.
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
# Updates the report for the daemon at once. A failed check does not fail this unit.
ExecStartPost=-{check}
ExecReload=-{check}
ExecStopPost=-{check}

{hardening}
[Install]
WantedBy=multi-user.target
"
    )
}

fn check_unit(config: &Config, program: Program<'_>) -> String {
    let check = program.call("check-firewall");
    let hardening = hardening(config);
    format!(
        "\
[Unit]
Description=Check of the CI runners' firewall
After={FIREWALL_UNIT} systemd-tmpfiles-setup.service
# No start limit: for the daemon, a refused check is the same as a check that did not run.
StartLimitIntervalSec=0

[Service]
Type=oneshot
# Compares and reports, and repairs nothing. The operator must learn that a program changed the rules.
# A table that is restored every few seconds would hide that.
ExecStart={check}
TimeoutStartSec=30s
# Its own messages are warnings. Messages about each start and end are suppressed.
SyslogLevel=warning
LogLevelMax=notice

{hardening}"
    )
}

/// Returns the hardening of both units.
fn hardening(config: &Config) -> String {
    let dir = config.firewall_dir();
    let dir = dir.display();
    format!(
        "\
# The check loads the rules a second time, in a separate network namespace.
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
Description=Periodic check of the CI runners' firewall
# Independent of the daemon, because containers run while the daemon is stopped.
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
