//! The template unit of each pool, whose instances are slots, and the slices.

use std::fmt::Write as _;
use std::time::Duration;

use super::file::{HostFile, Program, span};
use crate::config::{Config, Layer, PoolConfig, SharedLimit, Total};
use crate::firewall::FIREWALL_UNIT;

/// Time by which systemd's start timeout exceeds the daemon's boot timeout. The daemon's comes first
/// and gives a reason. systemd's is a safety net.
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
            template(config, pool, program),
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

/// Returns the limits that all containers share with the host's root.
fn shared_limits(config: &Config) -> String {
    let mut text = String::from(
        "\
# The kernel counts these for the host's root and all containers together. Each user of a container has its
# own maximum, and TasksMax= and MemoryMax= bound the other two.
LimitNPROC=infinity
LimitMEMLOCK=infinity
",
    );
    for limit in SharedLimit::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "Limit{}={}", limit.name, limit.of_runners(config));
    }
    text
}

/// Returns the settings of what a runner writes to the host's journal.
fn log_settings(pool: &PoolConfig) -> String {
    let name = &pool.name;
    format!(
        "\
# The container's console, with the runner's lines. The rate is limited, because a job with root
# privileges in the container can write to it too.
StandardOutput=journal
StandardError=inherit
SyslogIdentifier={name}-%i
# journald writes emergency messages to every terminal of the host. A line may not choose its level.
SyslogLevel=info
SyslogLevelPrefix=no
LogExtraFields=POOL={name}
LogExtraFields=SLOT=%i
# This counts lines. The launcher's reader of the console bounds their bytes.
LogRateLimitIntervalSec=60s
LogRateLimitBurst=300
"
    )
}

/// Returns the rules for the devices that a pool opens to its jobs.
fn opened_devices(pool: &PoolConfig) -> String {
    let mut text = String::new();
    for (at, device) in pool.devices.iter().enumerate() {
        if at == 0 {
            text.push_str("# The pool opens these to its jobs. The launcher makes the nodes.\n");
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "DeviceAllow={} rwm", device.path());
    }
    text
}

fn template(config: &Config, pool: &PoolConfig, program: Program<'_>) -> String {
    let name = &pool.name;
    let limits = &pool.limits;
    let timeouts = &pool.timeouts;
    let launch = program.call(&format!("launch {name} %i"));
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
    let shared = shared_limits(config);
    let opened = opened_devices(pool);
    let devices = match pool.layer {
        Layer::Tmpfs { .. } => "",
        Layer::Disk { .. } => {
            "\
# The launcher puts the writable layer on a loop device. The container has no node of a loop device,
# and a device node cannot be created in a user namespace.
DeviceAllow=/dev/loop-control rw
DeviceAllow=block-loop rw
"
        }
    };
    let log = log_settings(pool);
    format!(
        "\
[Unit]
Description=CI runner {name}-%i
After={firewall} systemd-tmpfiles-setup.service systemd-modules-load.service network.target
Wants={firewall}
# No start limit: the daemon decides when a slot starts. systemd would refuse the sixth short job.
StartLimitIntervalSec=0
# `systemctl isolate` and `systemctl default` end no job.
IgnoreOnIsolate=yes
# Unloads a failed unit, because the end record has the result. Otherwise a drained slot would stay in
# `systemctl --failed`.
CollectMode=inactive-or-failed

[Service]
# Ready when the container's systemd is ready and its network is up. systemd-nspawn reports the first to a
# program of the launcher, which passes on nothing else of the container.
Type=notify
NotifyAccess=main
ExecStart={launch}
ExecStopPost={sweep}
# The results of jobs: GitHub's listener exits with 100 and the number of its job's result.
SuccessExitStatus=100 101 102 103 104 105
# The daemon starts a slot again when the pool needs a runner.
Restart=no
TimeoutStartSec={start}
TimeoutStopSec={stop}
# Longest lifetime of a runner: the sum of all timeouts, and one day in which the daemon or GitHub is
# down and the daemon cannot enforce them. It never ends a job early.
RuntimeMaxSec={longest}
# systemd-nspawn gets SIGTERM and shuts the container down. systemd kills all remaining processes.
KillMode=mixed
# PrivateMounts= is not set: the launcher makes a mount namespace, and the sweep needs the host's. It
# would take 10 ms in each of the two programs.

# The container's systemd manages the control groups below this one.
Delegate=yes
Slice=runners-{name}.slice
MemoryMax={memory}
MemorySwapMax=0
# If the kernel kills a process because memory is exhausted, the job fails and its runner reports it.
OOMPolicy=continue
{cpu}TasksMax={tasks}
IOWeight={io_weight}
LimitNOFILE={open_files}
{shared}DevicePolicy=closed
# systemd-nspawn creates these two device nodes if the host has them, and fails if it may not. Only
# creation is allowed: no process in the container can open them.
DeviceAllow=/dev/net/tun m
DeviceAllow=/dev/fuse m
{opened}{devices}
# AF_VSOCK ignores network namespaces and the firewall. Through it a job could reach services of this
# host, and of its hypervisor if this host is virtual. Rare families give access to kernel code that few
# people test. All processes of the container inherit this. A drop-in with this key adds families.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
# It sees neither the sockets that 32-bit programs make by socketcall and int 0x80, nor those that
# io_uring makes. A drop-in that empties one of these two lines allows it to this pool's jobs.
SystemCallArchitectures=native
SystemCallFilter=~io_uring_setup io_uring_enter io_uring_register
SystemCallErrorNumber=EPERM

{log}
# No other hardening: every process of the job would inherit a system call filter or
# MemoryDenyWriteExecute=. They break node, .NET and sanitizers.
"
    )
}
