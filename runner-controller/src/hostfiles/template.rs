//! The unit of a runner: one template per pool, started with a slot's number, and the slices.

use std::fmt::Write as _;
use std::time::Duration;

use super::file::{HostFile, Program, span};
use crate::config::{Config, Layer, PoolConfig, Total};
use crate::firewall::FIREWALL_UNIT;

/// The daemon's own boot timeout comes first, and says why; systemd's is a net under it.
const BOOT_MARGIN: Duration = Duration::from_secs(15);

pub(super) fn files(config: &Config, program: Program<'_>) -> Vec<HostFile> {
    let mut files = vec![HostFile::unit(
        "runners.slice",
        slice("All CI runners of this host", &Total::default()),
    )];
    for pool in &config.pools {
        let name = &pool.name;
        files.push(HostFile::unit(
            &format!("runners-{name}.slice"),
            slice(&format!("CI runners of pool {name}"), &pool.total),
        ));
        files.push(HostFile::unit(
            &format!("runner-{name}@.service"),
            template(pool, program),
        ));
    }
    files
}

fn slice(description: &str, total: &Total) -> String {
    let mut text = format!(
        "\
[Unit]
Description={description}

[Slice]
CPUAccounting=yes
MemoryAccounting=yes
TasksAccounting=yes
IOAccounting=yes
"
    );
    let Total { memory, cpu, tasks } = total;
    // Writing to a String cannot fail.
    if let Some(memory) = memory {
        let _ = write!(text, "MemoryMax={}\nMemorySwapMax=0\n", memory.0);
    }
    if let Some(cpu) = cpu {
        let _ = writeln!(text, "CPUQuota={}", cpu.quota());
    }
    if let Some(tasks) = tasks {
        let _ = writeln!(text, "TasksMax={tasks}");
    }
    text
}

fn template(pool: &PoolConfig, program: Program<'_>) -> String {
    let name = &pool.name;
    let limits = &pool.limits;
    let timeouts = &pool.timeouts;
    let launch = program.call(&format!("launch {name} %i"));
    let connect = program.call(&format!("connect {name} %i"));
    let sweep = program.call(&format!("sweep {name} %i"));
    let firewall = FIREWALL_UNIT;
    let start = span(timeouts.boot + BOOT_MARGIN);
    let stop = span(timeouts.stop);
    let longest = span(pool.longest_lifetime());
    let memory = limits.memory.0;
    let cpu = limits
        .cpu
        .map(|cpu| format!("CPUQuota={}\n", cpu.quota()))
        .unwrap_or_default();
    let tasks = limits.tasks;
    let io_weight = limits.io_weight;
    let open_files = limits.open_files;
    let devices = match pool.layer {
        Layer::Tmpfs { .. } => "",
        Layer::Disk { .. } => {
            "\
# The launcher puts the writable layer on a loop device. The container has no node of one, and none
# of its own making works in a user namespace.
DeviceAllow=/dev/loop-control rw
DeviceAllow=block-loop rw
"
        }
    };
    format!(
        "\
[Unit]
Description=CI runner {name}-%i
After={firewall} systemd-tmpfiles-setup.service systemd-modules-load.service network.target
Wants={firewall}
# How often a slot may start is the daemon's plan; systemd would refuse the sixth quick job.
StartLimitIntervalSec=0
# How a life ended is in its record. A drained slot is not to stand in `systemctl --failed` for ever.
CollectMode=inactive-or-failed

[Service]
# Ready when the container's own systemd is; the launcher becomes systemd-nspawn, which tells.
Type=notify
NotifyAccess=main
ExecStart={launch}
ExecStartPost={connect}
ExecStopPost={sweep}
# A slot is started again by the daemon, when a runner is wanted there.
Restart=no
TimeoutStartSec={start}
TimeoutStopSec={stop}
# The longest life the configuration allows: every bound in a row, and a day in which the daemon or
# GitHub is away and nobody enforces them. Cuts no job short.
RuntimeMaxSec={longest}
# systemd-nspawn gets SIGTERM and stops the container in order; the rest is killed with it.
KillMode=mixed
# No PrivateMounts=: the launcher makes a mount namespace of its own, and the sweep must see the
# host's. It would cost 10 ms in each of the three.

# The container's systemd manages what is below.
Delegate=yes
Slice=runners-{name}.slice
MemoryMax={memory}
MemorySwapMax=0
# A process killed for want of memory is the job's loss, and its runner reports it.
OOMPolicy=continue
{cpu}TasksMax={tasks}
IOWeight={io_weight}
LimitNOFILE={open_files}
DevicePolicy=closed
# systemd-nspawn makes nodes of these two if the host has them, and fails if it may not. To make is
# all that is allowed: nobody in the container opens them.
DeviceAllow=/dev/net/tun m
DeviceAllow=/dev/fuse m
{devices}
# A vsock knows no network namespace: past every rule a job would reach services of this host, and of
# the machine below if this one is virtual. All in the container inherit this, and miss nothing else.
RestrictAddressFamilies=~AF_VSOCK

# What the container says on its console: the runner's own lines. Bounded, because a job that is root
# in there may write to it as well.
StandardOutput=journal
StandardError=inherit
SyslogIdentifier={name}-%i
LogExtraFields=POOL={name}
LogExtraFields=SLOT=%i
LogRateLimitIntervalSec=60s
LogRateLimitBurst=300

# Nothing else here is tightened: a system call filter, MemoryDenyWriteExecute= and their like would
# be inherited by every process of the job, and break node, .NET and sanitizers in it.
"
    )
}
