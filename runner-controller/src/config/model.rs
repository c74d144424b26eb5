//! A whole configuration, checked.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::egress::Egress;
use super::github::GitHubConfig;
use super::logs::LogsConfig;
use super::notify::NotifyConfig;
use super::pool::PoolConfig;
use super::traces::TracesConfig;
use super::units::{ByteSize, Ipv4Block};
use super::webhook::WebhookConfig;
use crate::pool::{Budget, HostId, OrderRules, PoolName, ScopeId, Slot, SlotId};

/// Path of the configuration unless a command names another.
pub const DEFAULT_PATH: &str = "/etc/runner-controller/config.toml";
/// Run directory of a configuration that names none.
pub const DEFAULT_RUN_DIR: &str = "/run/runner-controller";
/// File name of the API socket in the run directory.
pub const API_SOCKET: &str = "api.sock";
/// Name of the systemd credential that holds the API's token.
pub const API_TOKEN_CREDENTIAL: &str = "api-token";
/// Name of the daemon's user and group.
pub const DAEMON_USER: &str = "runner-controller";

/// A configuration in which every value is in its range and all values fit each other.
#[derive(Debug, Clone)]
pub struct Config {
    /// Id of this host, with which the names of its runners begin.
    pub host: HostId,
    /// GitHub scopes and their credentials, at least one.
    pub scopes: Vec<GitHubConfig>,
    /// Addresses and uids for slots.
    pub network: Network,
    /// The pools, by name.
    pub pools: Vec<PoolConfig>,
    /// Directory of the daemon's database, owned by the daemon's user.
    pub state_dir: PathBuf,
    /// Directory of sockets and of root's records, on tmpfs.
    pub run_dir: PathBuf,
    /// Directory of writable layers on disk, owned by root.
    pub layer_dir: PathBuf,
    /// Interval between full reconciles, which catch what no signal reported.
    pub reconcile: Duration,
    /// Resources of the host that runners leave free.
    pub reserve: ReserveConfig,
    /// Runners that ended and are kept on record.
    pub history: HistoryConfig,
    /// Log files of listeners that are kept.
    pub logs: LogsConfig,
    /// TCP addresses of the API, none by default. They are read-only without a token.
    pub listen: Vec<SocketAddr>,
    /// File with the token for commands over TCP. The daemon's unit loads it as the credential
    /// `api-token`.
    pub api_token_file: Option<PathBuf>,
    /// Listener for GitHub's deliveries, none by default.
    pub webhook: Option<WebhookConfig>,
    /// Command that is told of events, none by default.
    pub notify: Option<NotifyConfig>,
    /// Collector that gets the traces of runners, none by default.
    pub traces: Option<TracesConfig>,
    /// Maxima for the runners of all pools together, none by default.
    pub budget: Budget,
    /// Order of the jobs that wait.
    pub order: OrderRules,
    /// True if the daemon only observes (`mode = "observe"`) and starts no runner.
    pub observes: bool,
}

/// The `[reserve]` table. Absent values follow from the host's size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReserveConfig {
    /// Free space on the filesystems of `state_dir` and `layer_dir`.
    pub disk: Option<ByteSize>,
    /// Available memory (`MemAvailable` in `proc_meminfo(5)`).
    pub memory: Option<ByteSize>,
}

/// The `[history]` table: maxima for the runners that ended and are kept on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryConfig {
    /// Time since the end of a runner.
    pub age: Duration,
    /// Number of runners. Each takes about 0.7 KiB.
    pub runners: u32,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            age: Duration::from_hours(90 * 24),
            runners: 200_000,
        }
    }
}

/// The `[network]` table.
#[derive(Debug, Clone)]
pub struct Network {
    /// Addresses for containers; each place takes a /30 of it.
    pub block: Ipv4Block,
    /// Nameservers in each container's `/etc/resolv.conf`, the only ones that it may reach.
    pub resolvers: Vec<Ipv4Addr>,
    /// First host uid of place 0; a multiple of 65,536.
    pub uid_base: u32,
}

impl Config {
    /// Returns the pool with this name.
    #[must_use]
    pub fn pool(&self, name: &PoolName) -> Option<&PoolConfig> {
        self.pools.iter().find(|pool| pool.name == *name)
    }

    /// Returns the settings of a configured scope.
    #[must_use]
    pub fn scope(&self, id: &ScopeId) -> Option<&GitHubConfig> {
        self.scopes.iter().find(|scope| scope.scope_id() == *id)
    }

    /// Returns true if the daemon knows which jobs wait.
    #[must_use]
    pub fn knows_jobs(&self) -> bool {
        self.webhook.is_some() || self.pools.iter().any(|pool| pool.demand.follows_jobs())
    }

    /// Returns the scopes as an operator reads them: `acme/widgets, other`.
    #[must_use]
    pub fn scope_list(&self) -> String {
        let scopes = self.scopes.iter().map(|scope| scope.scope.to_string());
        scopes.collect::<Vec<_>>().join(", ")
    }

    /// Returns notes on settings that are valid but may not be intended.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for address in self.listen.iter().filter(|a| !a.ip().is_loopback()) {
            let token = match self.api_token_file {
                Some(_) => ", and the token of api_token_file crosses the network in the clear",
                None => "",
            };
            notes.push(format!(
                "listen: {address} is not loopback, so other machines can read the status{token}; \
                 a proxy with TLS in front of 127.0.0.1 prevents this"
            ));
        }
        if let Some(webhook) = &self.webhook
            && !webhook.listen.ip().is_loopback()
        {
            notes.push(format!(
                "webhook.listen: {} is not loopback, so deliveries arrive without TLS; \
                 a proxy with TLS in front of 127.0.0.1 prevents this",
                webhook.listen
            ));
        }
        if let Some(traces) = &self.traces
            && traces.sends_headers_in_the_clear()
        {
            notes.push(format!(
                "traces.headers_file: the headers cross the network to {} in the clear; \
                 an https:// endpoint prevents this",
                traces.endpoint
            ));
        }
        for pool in self.pools.iter().filter(|p| p.egress != Egress::Internet) {
            notes.push(format!(
                "pools.{}: with egress = \"{}\" runners reach GitHub only through addresses in allow",
                pool.name,
                pool.egress.as_str()
            ));
        }
        notes
    }

    /// Returns all slots of all pools.
    pub fn slots(&self) -> impl Iterator<Item = SlotId> + '_ {
        self.pools.iter().flat_map(|pool| {
            Slot::first(pool.max_runners).map(|slot| SlotId {
                pool: pool.name.clone(),
                slot,
            })
        })
    }

    /// Returns the number of slots of every pool.
    #[must_use]
    pub fn slots_count(&self) -> u64 {
        self.pools
            .iter()
            .map(|pool| u64::from(pool.max_runners))
            .sum()
    }

    /// Returns the files with secrets that the configuration names.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let scopes = self.scopes.iter();
        let of_scopes = scopes.flat_map(|scope| {
            let proxy = scope.proxy.as_ref();
            let of_proxy = proxy.and_then(|proxy| proxy.credentials_file.as_deref());
            std::iter::once(scope.login.file()).chain(of_proxy)
        });
        of_scopes
            .chain(self.api_token_file.as_deref())
            .chain(self.webhook.iter().flat_map(WebhookConfig::secret_files))
            .chain(self.traces.iter().filter_map(|t| t.headers_file.as_deref()))
    }

    /// Returns the path of the API socket, which is a link if the run directory belongs to root.
    #[must_use]
    pub fn api_socket(&self) -> PathBuf {
        self.run_dir.join(API_SOCKET)
    }

    /// Returns the path of systemd's socket for notifications.
    #[must_use]
    pub fn notify_socket(&self) -> PathBuf {
        self.run_dir.join("notify.sock")
    }

    /// Returns the path of systemd's socket for the mounts of containers.
    #[must_use]
    pub fn mounts_socket(&self) -> PathBuf {
        self.run_dir.join("mounts.sock")
    }

    /// Returns the daemon's directory for the API socket. The run directory belongs to root.
    #[must_use]
    pub fn api_dir(&self) -> PathBuf {
        self.run_dir.join("api")
    }

    /// Returns root's directory for the records of all slots.
    #[must_use]
    pub fn records_dir(&self) -> PathBuf {
        self.run_dir.join("lives")
    }

    /// Returns root's directory for the result of firewall checks.
    #[must_use]
    pub fn firewall_dir(&self) -> PathBuf {
        self.run_dir.join("firewall")
    }

    /// Returns the mount point of every launcher, each in its own mount namespace. It is empty on the
    /// host.
    #[must_use]
    pub fn mount_dir(&self) -> PathBuf {
        self.run_dir.join("mnt")
    }

    /// Returns root's file with the version of systemd-nspawn.
    #[must_use]
    pub fn nspawn_version(&self) -> PathBuf {
        self.run_dir.join("nspawn-version")
    }

    /// Returns root's directory with a mount point for each slot, on which a runner's own directory stays until
    /// its end is swept.
    #[must_use]
    pub fn own_dirs(&self) -> PathBuf {
        self.run_dir.join("own")
    }

    /// Returns the parent of the slots' socket directories, which root owns with mode 0750.
    #[must_use]
    pub fn slots_dir(&self) -> PathBuf {
        self.run_dir.join("slots")
    }
}
