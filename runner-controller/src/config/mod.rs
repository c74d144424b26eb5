//! The configuration file.
//!
//! [`load`] reads TOML into a checked [`Config`] and reports every mistake at once: its key, what is
//! wrong and what to write. It reads the file alone, so it works in a build sandbox. [`check_host`]
//! checks the files of this host that a configuration names.
//!
//! - `model`, `github`, `pool`, `egress`: the tables, checked
//! - `proxy`: an HTTP proxy of the daemon or of jobs
//! - `bind`: a directory of the host that containers have
//! - `logs`: log files of listeners that are kept
//! - `notify`: the command that is told of events
//! - `traces`: the collector that gets traces
//! - `webhook`: the listener for GitHub's deliveries
//! - `workload`: the jobs of a workload file, which `size` simulates
//! - `access`: devices and capabilities that a pool opens to its jobs
//! - `units`: sizes, cores, address blocks
//! - `place`: everything on the host that a slot determines
//! - `read`: the file, read and checked key by key
//! - `host_check`: the files that it names, and other conditions of this host
//! - `collisions`: addresses and uids that this host uses already
//! - `tables`: tables of the kernel that all containers share
//! - `network_tables`: tables of the network that all containers share

mod access;
mod bind;
mod calendar;
mod collisions;
mod egress;
mod github;
mod host_check;
mod logs;
mod mistake;
mod model;
mod network_tables;
mod notify;
mod place;
mod pool;
mod proxy;
mod read;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
mod traces;
mod units;
mod webhook;
mod workload;

pub use access::{Capability, Device};
pub use bind::Bind;
pub use calendar::ScheduleEntry;
pub use egress::{Allow, Egress, Protocol};
pub use github::{GitHubConfig, LoginConfig, Scope, ScopeName};
pub use host_check::{HostFindings, check_host, check_kernel};
pub(crate) use host_check::{INIT, MINIMAL_TARGET};
pub use logs::{KeptLogs, LOG_BUNDLES_DIR, LogsConfig};
pub use mistake::{Mistake, Mistakes};
pub use model::{
    API_SOCKET, API_TOKEN_CREDENTIAL, Config, DAEMON_USER, DEFAULT_PATH, DEFAULT_RUN_DIR,
    HistoryConfig, Network, ReserveConfig,
};
pub use network_tables::{Fragments, SourcePorts, network_settings};
pub use notify::{NotifyConfig, NotifyEvent};
pub use place::Place;
pub use pool::{BOOTS_PER_CORE, Image, Layer, Nix, PoolConfig, RunnerLimits, SharedParts, Total};
pub use proxy::ProxyConfig;
pub use read::{load, load_workload, parse, parse_workload};
pub(crate) use tables::path as setting_path;
pub use tables::{AioRequests, Connections, SharedLimit, Terminals, UserTable, host_maximum};
pub use traces::TracesConfig;
pub use units::{ByteSize, Cpu, Ipv4Block};
pub use webhook::WebhookConfig;
pub use workload::{JobKind, TraceJob, Workload};
