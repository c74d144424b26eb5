//! A `[pools.<name>]` table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::access::{Capability, Device};
use super::bind::Bind;
use super::calendar::ScheduleEntry;
use super::egress::{Allow, Egress};
use super::proxy::ProxyConfig;
use super::units::{ByteSize, Cpu};
use crate::pool::{Cost, Demand, Numbers, PoolLabels, PoolName, ScopeId, Spec, Timeouts};

/// Time without a daemon or without GitHub that [`PoolConfig::longest_lifetime`] allows for.
const ABSENCE: Duration = Duration::from_hours(24);

/// Boots of a pool at once, for each core of the host. A boot keeps less than one core busy, because it also waits for
/// the kernel and for systemd: `cargo bench-scale` had all spares sooner with two than with one.
pub const BOOTS_PER_CORE: u16 = 2;

/// A `[pools.<name>]` table.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Name of the pool.
    pub name: PoolName,
    /// Scope in which its runners register.
    pub scope: ScopeId,
    /// Place of slot 1; slot `s` has place `offset + s - 1`. The file fixes it, because a place that
    /// depended on the other pools would move the addresses of running containers.
    pub offset: u32,
    /// Labels of the runners, as written.
    pub labels: Vec<String>,
    /// Name of the runner group.
    pub runner_group: String,
    /// Authority that tells how many runners should listen.
    pub demand: Demand,
    /// Name of its scale set at GitHub, if that is the authority.
    pub scale_set: Option<String>,
    /// Time for which runners are kept that no waiting job needs any more.
    pub scale_down_after: Duration,
    /// Number of registered runners that wait for a job, besides those for jobs in the queue.
    pub min_idle: u16,
    /// Number of spares: booted containers that are not registered.
    pub min_spare: u16,
    /// Maximum number of runners in all states.
    pub max_runners: u16,
    /// Other numbers at certain hours. Of several entries the first one holds.
    pub schedule: Vec<ScheduleEntry>,
    /// Image that runners boot.
    pub image: Image,
    /// Writable layer of each runner.
    pub layer: Layer,
    /// Limits of each runner.
    pub limits: RunnerLimits,
    /// Limits of all runners together.
    pub total: Total,
    /// True if jobs may run Docker in their container.
    pub docker: bool,
    /// Timeouts of each runner.
    pub timeouts: Timeouts,
    /// Directory for checkouts, absolute in the container.
    pub work_folder: String,
    /// Destinations that jobs can reach.
    pub egress: Egress,
    /// Further destinations that jobs can reach, private addresses included.
    pub allow: Vec<Allow>,
    /// Nix in each container, if jobs have one.
    pub nix: Option<Nix>,
    /// Proxy of listener and jobs.
    pub proxy: Option<ProxyConfig>,
    /// Variables in the environment of listener and jobs.
    pub environment: BTreeMap<String, String>,
    /// Directories of the host that containers have.
    pub binds: Vec<Bind>,
    /// Devices that jobs can open.
    pub devices: BTreeSet<Device>,
    /// Capabilities of root in a container, besides those of every container.
    pub capabilities: BTreeSet<Capability>,
}

/// Settings of the Nix in a container. It never reaches the host's Nix.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Nix {
    /// Binary caches, in addition to those in the image's `nix.conf`.
    pub substituters: Vec<String>,
    /// Keys of binary caches, in addition to those of the image.
    pub trusted_public_keys: Vec<String>,
    /// Input of `nix-store --load-db`, as a path in the container: the valid paths of the store and
    /// their references.
    pub registration: Option<PathBuf>,
}

impl Nix {
    /// Path of the store in a container, wherever it is on the host.
    pub const STORE: &str = "/nix/store";
}

/// Image that a container boots.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Image {
    /// A systemd userland in a directory, which all containers share read-only.
    Directory {
        /// Root of the userland.
        path: PathBuf,
        /// Directory of the runner in the container. It is always tmpfs, because the runner writes its
        /// decoded config there.
        runner_root: PathBuf,
    },
    /// A NixOS system closure in the Nix store.
    Nixos {
        /// Store path of the system, `<store>/<hash>-nixos-system-…`.
        system: PathBuf,
        /// The store, which is read-only at `/nix/store` in the container.
        store: PathBuf,
        /// Directory of the runner in the container; always tmpfs.
        runner_root: PathBuf,
    },
}

/// Writable layer of a runner. It disappears by being unmounted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Layer {
    /// Memory, which counts as the container's.
    Tmpfs {
        /// Maximum size.
        size: ByteSize,
    },
    /// A filesystem in an unlinked file below `layer_dir`.
    Disk {
        /// Maximum size.
        size: ByteSize,
    },
}

/// Limits of one runner, which its unit template holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RunnerLimits {
    /// `MemoryMax`, swap excluded.
    pub memory: ByteSize,
    /// `CPUQuota` in cores; unlimited if absent.
    pub cpu: Option<Cpu>,
    /// `TasksMax`.
    pub tasks: u32,
    /// `IOWeight`, 1 to 10,000.
    pub io_weight: u16,
    /// `LimitNOFILE`.
    pub open_files: u32,
    /// Parts of the tables that all containers and the host share.
    ///
    /// A pool with the defaults keeps the generation that an earlier version gave it.
    #[serde(skip_serializing_if = "SharedParts::is_default")]
    pub shared: SharedParts,
}

/// A runner's parts of the kernel's tables that all containers and the host share.
///
/// Only `control_groups`, `control_group_depth`, `connections` and `terminals` hold for a whole container. The
/// others hold for each of its users.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SharedParts {
    /// Control groups below the container's. systemd in a container and docker use about 60.
    pub control_groups: u32,
    /// Levels of control groups. systemd in a container uses 5, and docker 3 more.
    pub control_group_depth: u32,
    /// Open connections through the host's connection tracking.
    pub connections: u32,
    /// Pseudo terminals on the container's `/dev/pts`, its console included.
    pub terminals: u32,
    /// inotify instances.
    pub inotify_instances: u32,
    /// inotify watches.
    pub inotify_watches: u32,
    /// Namespaces of each kind but user namespaces.
    pub namespaces: u32,
    /// User namespaces.
    pub user_namespaces: u32,
    /// Pending signals, of which each POSIX timer takes one.
    pub pending_signals: u32,
}

impl SharedParts {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for SharedParts {
    fn default() -> Self {
        Self {
            control_groups: 500,
            control_group_depth: 24,
            connections: 8192,
            terminals: 1024,
            inotify_instances: 1024,
            inotify_watches: 1 << 19,
            namespaces: 1024,
            user_namespaces: 1024,
            pending_signals: 1024,
        }
    }
}

/// Limits of all runners of a pool together, which the pool's slice holds. Absent limits do not apply.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Total {
    /// `MemoryMax`, swap excluded.
    pub memory: Option<ByteSize>,
    /// `CPUQuota` in cores.
    pub cpu: Option<Cpu>,
    /// `TasksMax`.
    pub tasks: Option<u32>,
}

impl PoolConfig {
    /// Returns the generation: a name for everything that a runner is started from. A runner of
    /// another generation is out of date.
    ///
    /// It covers what the launcher and the unit template use, and what a registration keeps for the
    /// runner's life: labels, group and work folder.
    #[must_use]
    pub fn generation(&self) -> String {
        let mut facts = serde_json::json!({
            "image": self.image, "layer": self.layer, "limits": self.limits, "docker": self.docker,
            "labels": self.labels, "group": self.runner_group, "work_folder": self.work_folder,
            // A container's resolv.conf depends on it. The firewall's rules apply to all runners.
            "dns": self.egress.has_dns(),
            "nix": self.nix,
        });
        // A pool without these keeps the generation that an earlier version gave it.
        if let Some(set) = &self.scale_set {
            facts["scale_set"] = serde_json::json!(set);
        }
        if let Some(proxy) = &self.proxy {
            facts["proxy"] = serde_json::json!(proxy.environment());
        }
        if !self.environment.is_empty() {
            facts["environment"] = serde_json::json!(self.environment);
        }
        if !self.binds.is_empty() {
            facts["binds"] = serde_json::json!(self.binds);
        }
        if !self.devices.is_empty() {
            facts["devices"] = serde_json::json!(self.devices);
        }
        if !self.capabilities.is_empty() {
            facts["capabilities"] = serde_json::json!(self.capabilities);
        }
        let digest = Sha256::digest(facts.to_string().as_bytes());
        let (first, _) = digest.split_at(8);
        let number = first
            .iter()
            .fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        format!("{number:016x}")
    }

    /// Returns the entry of the schedule that holds at a time, in milliseconds since 1970.
    #[must_use]
    pub fn scheduled(&self, unix_ms: u64) -> Option<&ScheduleEntry> {
        self.schedule.iter().find(|entry| entry.contains(unix_ms))
    }

    /// Returns the numbers of runners outside of the hours of the schedule.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        Numbers {
            min_idle: self.min_idle,
            min_spare: self.min_spare,
            max_runners: self.max_runners,
        }
    }

    /// Returns the desired state. `boots_at_once` is the maximum number of containers that boot at once.
    #[must_use]
    pub fn spec(&self, boots_at_once: u16) -> Spec {
        Spec {
            name: self.name.clone(),
            scope: Some(self.scope.clone()),
            slots: self.max_runners,
            numbers: self.numbers(),
            generation: self.generation(),
            boots_at_once,
            demand: self.demand,
            scale_down_after: self.scale_down_after,
            cost: Some(self.cost()),
            timeouts: self.timeouts.clone(),
        }
    }

    /// Returns the labels by which the pool serves jobs.
    #[must_use]
    pub fn pool_labels(&self) -> PoolLabels {
        PoolLabels::new(self.name.clone(), self.scope.clone(), &self.labels)
            .with_scale_set(self.scale_set.is_some())
    }

    /// Returns what one runner takes of the host's budget.
    #[must_use]
    pub fn cost(&self) -> Cost {
        Cost {
            memory_bytes: self.limits.memory.0,
            millicores: self.limits.cpu.map_or(0, |cpu| u64::from(cpu.millicores)),
            runners: 1,
        }
    }

    /// Returns the longest time that a unit of this pool may run: the sum of all timeouts, and a day
    /// without a daemon to enforce them. The unit template has it as `RuntimeMaxSec`, a last resort
    /// that cuts no job short.
    ///
    /// While the daemon is away, or GitHub does not answer whether an idle runner may be ended, that
    /// runner waits beyond its age. A job that it gets then has all of its time.
    #[must_use]
    pub fn longest_lifetime(&self) -> Duration {
        let t = &self.timeouts;
        t.boot + t.spare_age + t.registration + t.idle_age + t.job + t.stop + ABSENCE
    }
}

impl RunnerLimits {
    /// Returns the memory for the job. The rest is for the listener and systemd, which must survive
    /// when a job is killed for want of memory. GitHub's listener takes about 100 MB.
    #[must_use]
    pub fn job_memory(&self) -> ByteSize {
        ByteSize(self.memory.0 - (self.memory.0 / 8).min(128 << 20))
    }

    /// Returns the tasks for the job. A listener that cannot start a thread does not renew its job's
    /// lock.
    #[must_use]
    pub fn job_tasks(&self) -> u32 {
        self.tasks - (self.tasks / 4).min(128)
    }
}

impl Image {
    /// Returns the directory in the container in which the runner writes its decoded config.
    #[must_use]
    pub fn runner_root(&self) -> &Path {
        match self {
            Self::Directory { runner_root, .. } | Self::Nixos { runner_root, .. } => runner_root,
        }
    }
}

impl Layer {
    /// Returns the maximum size.
    #[must_use]
    pub fn size(&self) -> ByteSize {
        match self {
            Self::Tmpfs { size } | Self::Disk { size } => *size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_gets_a_little_less_than_its_container() {
        let limits = |memory, tasks| RunnerLimits {
            memory: ByteSize(memory),
            cpu: None,
            tasks,
            io_weight: 100,
            open_files: 1024,
            shared: SharedParts::default(),
        };
        let small = limits(64 << 20, 64);
        assert_eq!(small.job_memory(), ByteSize(56 << 20));
        assert_eq!(small.job_tasks(), 48);
        let large = limits(8 << 30, 4096);
        assert_eq!(large.job_memory(), ByteSize((8 << 30) - (128 << 20)));
        assert_eq!(large.job_tasks(), 3968);
    }
}
