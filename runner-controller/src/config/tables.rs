//! Tables of the kernel that all containers of a host share, and the parts of a host and of a runner.
//!
//! systemd-nspawn makes a container's user namespace as the host's root. The kernel counts an object of a
//! container twice: for its user in that namespace, and for root of the host, whose maximum therefore
//! holds for all containers together (`inc_ucount` in kernel/ucount.c).
//!
//! - The first maximum is a runner's part. `connect` writes it to the container's user namespace, where a
//!   change needs `CAP_SYS_RESOURCE`, and a container does not have that.
//! - Root in a container can be 65,536 users, so the second maximum is above the number of objects that
//!   fit into the memory of all runners. The kernel counts the objects as the container's memory.

use super::mistake::Mistake;
use super::model::Config;
use super::pool::{PoolConfig, SharedParts};

/// Smallest memory of an object with a file descriptor: a file, its name and the object itself.
const SMALLEST_OBJECT_BYTES: u64 = 512;
/// Maximum that the kernel accepts (`user_table` in kernel/ucount.c).
const KERNEL_MAXIMUM: u64 = i32::MAX as u64;
/// Pending signals that the host itself needs.
const HOST_SIGNALS: u64 = 1024;
/// Least host-wide maximum, for a host with a few small runners.
const LEAST_MAXIMUM: u64 = 1 << 20;

/// Objects that the kernel counts for each user of a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserTable {
    /// File in `/proc/sys/user`.
    pub file: &'static str,
    /// Name of the host-wide maximum.
    pub sysctl: &'static str,
    /// Maximum for each user of a container.
    part: Part,
    /// Number that an idle container takes.
    pub idle: u64,
    /// Number that the host itself takes.
    pub host: u64,
}

/// A maximum that is fixed, or the key of a pool's limits that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Fixed(u32),
    InotifyInstances,
    InotifyWatches,
    Namespaces,
    UserNamespaces,
}

impl UserTable {
    /// File watchers. An idle container takes 4 to 8 inotify instances.
    pub const INOTIFY_INSTANCES: Self = Self {
        file: "max_inotify_instances",
        sysctl: "fs.inotify.max_user_instances",
        part: Part::InotifyInstances,
        idle: 8,
        host: 64,
    };

    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::INOTIFY_INSTANCES,
        Self {
            file: "max_inotify_watches",
            sysctl: "fs.inotify.max_user_watches",
            part: Part::InotifyWatches,
            idle: 64,
            host: 4096,
        },
        Self {
            file: "max_fanotify_groups",
            sysctl: "fs.fanotify.max_user_groups",
            part: Part::Fixed(128),
            idle: 0,
            host: 16,
        },
        Self {
            file: "max_fanotify_marks",
            sysctl: "fs.fanotify.max_user_marks",
            part: Part::Fixed(1 << 17),
            idle: 0,
            host: 1024,
        },
        Self {
            part: Part::UserNamespaces,
            ..Self::namespaces("max_user_namespaces", "user.max_user_namespaces")
        },
        Self::namespaces("max_pid_namespaces", "user.max_pid_namespaces"),
        Self::namespaces("max_uts_namespaces", "user.max_uts_namespaces"),
        Self::namespaces("max_ipc_namespaces", "user.max_ipc_namespaces"),
        Self::namespaces("max_net_namespaces", "user.max_net_namespaces"),
        Self::namespaces("max_mnt_namespaces", "user.max_mnt_namespaces"),
        Self::namespaces("max_cgroup_namespaces", "user.max_cgroup_namespaces"),
        Self::namespaces("max_time_namespaces", "user.max_time_namespaces"),
    ];

    /// Namespaces of one kind. Units with sandboxes take most of those of an idle container.
    const fn namespaces(file: &'static str, sysctl: &'static str) -> Self {
        Self {
            file,
            sysctl,
            part: Part::Namespaces,
            idle: 32,
            host: 1024,
        }
    }

    /// Returns the maximum for each user of a container.
    #[must_use]
    pub fn per_user(&self, parts: &SharedParts) -> u32 {
        match self.part {
            Part::Fixed(maximum) => maximum,
            Part::InotifyInstances => parts.inotify_instances,
            Part::InotifyWatches => parts.inotify_watches,
            Part::Namespaces => parts.namespaces,
            Part::UserNamespaces => parts.user_namespaces,
        }
    }

    /// Returns the number that all idle containers and the host take.
    #[must_use]
    pub fn needed(&self, config: &Config) -> u64 {
        self.host + self.idle * config.slots_count()
    }

    /// Returns the file of the host-wide maximum.
    #[must_use]
    pub fn path(&self) -> String {
        path(self.sysctl)
    }
}

/// A runner's part of the host's connection tracking table.
///
/// The table's entries are not memory of a container, so each slot has a part and the table has room for all
/// parts. Our rules count the connections that are open. A closed one is not counted and keeps its entry for two
/// minutes (`nf_conntrack_tcp_timeout_time_wait`), so the rules also bound the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections;

impl Connections {
    /// Name of the host-wide maximum.
    pub const SYSCTL: &'static str = "net.netfilter.nf_conntrack_max";
    /// Maximum number of new connections at once.
    pub const BURST: u32 = 16_384;
    /// Maximum number of new connections in each second after a burst.
    pub const PER_SECOND: u32 = 128;
    /// Seconds for which a closed connection keeps its entry.
    const CLOSED_SECONDS: u32 = 120;
    /// Maximum number of entries of a runner beside its open connections.
    const CLOSED: u32 = Self::BURST + Self::PER_SECOND * Self::CLOSED_SECONDS;
    /// The kernel's default on a host with 4 GiB of memory or more, which stays the host's.
    const HOST: u64 = 1 << 18;
    /// Least number for the host.
    const LEAST_HOST: u64 = 1 << 14;

    /// Returns the host-wide maximum.
    #[must_use]
    pub fn host_maximum(config: &Config) -> u64 {
        Self::HOST + Self::of_runners(config)
    }

    fn of_runners(config: &Config) -> u64 {
        sum(config, |parts| Self::CLOSED + parts.connections)
    }
}

/// A runner's part of the host's pseudo terminals.
///
/// A terminal takes 24 KiB that are not memory of a container, so each slot has a part, which is the limit of the
/// container's `/dev/pts`. A job can mount another devpts, which has none. Therefore the parts are in the reserve
/// (`kernel.pty.reserve`), which the kernel keeps for every devpts that was mounted from the host's first mount
/// namespace. The launcher mounts those of the containers there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminals;

impl Terminals {
    /// Name of the host-wide maximum.
    pub const SYSCTL: &'static str = "kernel.pty.max";
    /// Name of the reserve.
    pub const RESERVE: &'static str = "kernel.pty.reserve";
    /// The kernel's default reserve, which stays the host's.
    const HOST: u64 = 1024;
    /// Terminals outside of the reserve: those on each devpts that a job mounts. It is the kernel's default maximum.
    const OTHERS: u64 = 4096;
    /// Least number for the host: its reserve, and as many for other containers.
    const LEAST_HOST: u64 = 2048;

    /// Returns the host-wide maximum.
    #[must_use]
    pub fn host_maximum(config: &Config) -> u64 {
        Self::OTHERS + Self::host_reserve(config)
    }

    /// Returns the reserve of the host and of all containers.
    #[must_use]
    pub fn host_reserve(config: &Config) -> u64 {
        Self::HOST + Self::of_runners(config)
    }

    fn of_runners(config: &Config) -> u64 {
        sum(config, |parts| parts.terminals)
    }
}

/// Resource limit that the kernel counts for each user of a container, and again for the host's root.
///
/// The second maximum is the limit of the unit, because it is in force when systemd-nspawn makes the user namespace
/// (`set_userns_rlimit_max` in kernel/fork.c). All containers share it, so it is the sum of all parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedLimit {
    /// Name in setrlimit(2), without `RLIMIT_`.
    pub name: &'static str,
    /// Maximum for each user of a container, if it is fixed.
    fixed: Option<u32>,
}

impl SharedLimit {
    /// Pending signals, of which each POSIX timer takes one.
    pub const PENDING_SIGNALS: Self = Self {
        name: "SIGPENDING",
        fixed: None,
    };

    /// All of them. The default of POSIX message queues, 819,200 bytes, is also that of the host's root.
    pub const ALL: [Self; 2] = [
        Self::PENDING_SIGNALS,
        Self {
            name: "MSGQUEUE",
            fixed: Some(204_800),
        },
    ];

    /// Returns the maximum for each user of a container.
    #[must_use]
    pub fn per_user(&self, parts: &SharedParts) -> u32 {
        self.fixed.unwrap_or(parts.pending_signals)
    }

    /// Returns the maximum of all containers together.
    #[must_use]
    pub fn of_runners(&self, config: &Config) -> u64 {
        sum(config, |parts| self.per_user(parts))
    }
}

/// Requests of asynchronous I/O (`io_setup(2)`).
///
/// The kernel has no maximum for a user. A request takes 64 bytes of its ring, which is memory of the container, so
/// the host-wide maximum is above what the memory of all runners can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AioRequests;

impl AioRequests {
    /// Name of the host-wide maximum.
    pub const SYSCTL: &'static str = "fs.aio-max-nr";
    /// Memory of a request: two events of 32 bytes (`ioctx_alloc` in fs/aio.c).
    const BYTES: u64 = 64;
    /// The kernel's default, which stays the host's.
    const HOST: u64 = 1 << 16;

    /// Returns the host-wide maximum.
    #[must_use]
    pub fn host_maximum(config: &Config) -> u64 {
        Self::HOST.saturating_add(memory_bytes(config) / Self::BYTES)
    }
}

/// Returns the sum of the parts of all slots.
fn sum(config: &Config, part: impl Fn(&SharedParts) -> u32) -> u64 {
    let of_pool =
        |pool: &PoolConfig| u64::from(part(&pool.limits.shared)) * u64::from(pool.max_runners);
    config.pools.iter().map(of_pool).sum()
}

/// Returns the memory of all runners.
pub(super) fn memory_bytes(config: &Config) -> u64 {
    let memory = |pool: &PoolConfig| {
        let slots = u64::from(pool.max_runners);
        pool.limits.memory.0.saturating_mul(slots)
    };
    config.pools.iter().map(memory).fold(0, u64::saturating_add)
}

/// Returns the file of a kernel setting.
pub(crate) fn path(sysctl: &str) -> String {
    format!("/proc/sys/{}", sysctl.replace('.', "/"))
}

/// Returns the host-wide maximum of every [`UserTable`].
#[must_use]
pub fn host_maximum(config: &Config) -> u64 {
    (memory_bytes(config) / SMALLEST_OBJECT_BYTES).clamp(LEAST_MAXIMUM, KERNEL_MAXIMUM)
}

/// Returns the tables that the configured slots do not fit, given the host's settings. A setting that the
/// kernel does not have limits nothing.
#[must_use]
pub(super) fn too_small(config: &Config, setting: impl Fn(&str) -> Option<u64>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let connections = Connections::LEAST_HOST + Connections::of_runners(config);
    let terminals = Terminals::LEAST_HOST + Terminals::of_runners(config);
    // The kernel gives root half as many pending signals as there can be tasks (`fork_init` in kernel/fork.c).
    let signals = SharedLimit::PENDING_SIGNALS.of_runners(config);
    let tasks = 2 * (signals + HOST_SIGNALS);
    let tables = UserTable::ALL.map(|table| ("idle ", table.sysctl, table.needed(config)));
    let all = tables.into_iter().chain([
        ("", Connections::SYSCTL, connections),
        ("", Terminals::SYSCTL, terminals),
        ("", "kernel.threads-max", tasks),
    ]);
    for (state, sysctl, needed) in all {
        let Some(maximum) = setting(&path(sysctl)).filter(|maximum| *maximum < needed) else {
            continue;
        };
        mistakes.push(Mistake {
            key: "pools".into(),
            wrong: format!(
                "{} {state}runners and the host need {sysctl} = {needed}, and this host has {maximum}",
                config.slots_count(),
            ),
            write: "smaller max_runners, or install the host files and run `sysctl --system`"
                .into(),
        });
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteSize, testing};

    fn with(slots: u16, memory: u64) -> Config {
        let mut config = testing::config();
        config.pools.truncate(1);
        config.pools[0].max_runners = slots;
        config.pools[0].limits.memory = ByteSize(memory);
        config
    }

    #[test]
    fn the_host_wide_maximum_scales_with_the_memory_of_all_slots() {
        assert_eq!(host_maximum(&with(2, 1 << 20)), LEAST_MAXIMUM);
        assert_eq!(host_maximum(&with(2, 1 << 30)), 1 << 22);
        assert_eq!(host_maximum(&with(60, 4 << 30)), 60 << 23);
        assert_eq!(host_maximum(&with(999, 1 << 40)), KERNEL_MAXIMUM);
    }

    #[test]
    fn requests_of_asynchronous_io_end_with_the_memory_of_all_runners() {
        let config = with(60, 4 << 30);
        assert_eq!(AioRequests::host_maximum(&config), (1 << 16) + (60 << 26));
        let signals = SharedLimit::PENDING_SIGNALS.of_runners(&config);
        assert_eq!(signals, 60 << 10);
    }

    #[test]
    fn a_larger_part_of_each_runner_makes_the_hosts_tables_larger() {
        let (usual, mut more) = (with(60, 4 << 30), with(60, 4 << 30));
        let parts = &mut more.pools[0].limits.shared;
        parts.terminals += 100;
        parts.connections += 1000;
        parts.pending_signals += 10;
        let grown = |maximum: fn(&Config) -> u64| maximum(&more) - maximum(&usual);
        assert_eq!(grown(Terminals::host_maximum), 6000);
        assert_eq!(grown(Connections::host_maximum), 60_000);
        let signals = |config: &Config| SharedLimit::PENDING_SIGNALS.of_runners(config);
        assert_eq!(grown(signals), 600);
    }

    #[test]
    fn sixty_idle_runners_do_not_fit_debians_defaults_and_fit_our_files() {
        let config = with(60, 4 << 30);
        // Debian 13 with 24 GiB of memory.
        let debian = |path: &str| match path {
            "/proc/sys/fs/inotify/max_user_instances" => Some(128),
            "/proc/sys/fs/inotify/max_user_watches" => Some(192_536),
            "/proc/sys/user/max_uts_namespaces" => Some(96_365),
            "/proc/sys/net/netfilter/nf_conntrack_max" => Some(1 << 18),
            "/proc/sys/kernel/pty/max" => Some(4096),
            "/proc/sys/kernel/threads-max" => Some(192_731),
            _ => None,
        };
        let wrong = too_small(&config, debian);
        let wrong: Vec<&str> = wrong.iter().map(|mistake| mistake.wrong.as_str()).collect();
        assert_eq!(
            wrong,
            [
                "60 idle runners and the host need fs.inotify.max_user_instances = 544, and this host has 128",
                "60 runners and the host need net.netfilter.nf_conntrack_max = 2412544, and this host has 262144",
                "60 runners and the host need kernel.pty.max = 63488, and this host has 4096"
            ]
        );
        let ours = |path: &str| match path {
            "/proc/sys/net/netfilter/nf_conntrack_max" => Some(Connections::host_maximum(&config)),
            "/proc/sys/kernel/pty/max" => Some(Terminals::host_maximum(&config)),
            _ => Some(host_maximum(&config)),
        };
        assert_eq!(too_small(&config, ours), []);
        assert_eq!(too_small(&with(2, 4 << 30), debian), []);
    }
}
