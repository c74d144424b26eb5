//! The configuration: TOML as written, then [`Config`] as checked.
//!
//! [`load`] reports every mistake at once, each with its key, what is wrong and what to write. It
//! reads nothing but the file, so it works in a build sandbox; [`check_host`] looks at the host.

mod check;
mod egress;
mod place;
mod section;
mod units;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use url::Url;

use crate::pool::{HostId, PoolName, Slot, SlotId, Timeouts};

pub use check::{check_host, load, parse};
pub use egress::{Allow, Egress, Protocol};
pub use place::Place;
pub use units::{ByteSize, Cpu, Ipv4Block};

/// Where the configuration is unless a command is told otherwise.
pub const DEFAULT_PATH: &str = "/etc/runner-controller/config.toml";
/// Run directory of a configuration that names none.
pub const DEFAULT_RUN_DIR: &str = "/run/runner-controller";
/// File name of the API socket in the run directory.
pub const API_SOCKET: &str = "api.sock";

/// How long the daemon or GitHub may be away before the last net counts it.
const ABSENCE: Duration = Duration::from_hours(24);

/// One thing to change in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands, as a dotted key: `pools.ci.max_runners`.
    pub key: String,
    /// What is wrong.
    pub wrong: String,
    /// What to write instead.
    pub write: String,
}

/// All mistakes of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes {
    /// The file.
    pub file: PathBuf,
    /// At least one.
    pub list: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.list.len() == 1 {
            "mistake"
        } else {
            "mistakes"
        };
        writeln!(f, "{}: {} {plural}", self.file.display(), self.list.len())?;
        for Mistake { key, wrong, write } in &self.list {
            write!(f, "\n  {key}\n    wrong: {wrong}\n    write: {write}\n")?;
        }
        Ok(())
    }
}

/// A checked configuration: every value in range, every cross-check passed.
#[derive(Debug, Clone)]
pub struct Config {
    /// This host's id; its runners' names begin with it.
    pub host: HostId,
    /// Where jobs come from.
    pub github: GitHubConfig,
    /// Addresses and ids that slots take.
    pub network: Network,
    /// The pools, by name.
    pub pools: Vec<PoolConfig>,
    /// The daemon's own records (owned by its user).
    pub state_dir: PathBuf,
    /// Sockets and life records, on tmpfs.
    pub run_dir: PathBuf,
    /// Disk-backed writable layers (owned by root).
    pub layer_dir: PathBuf,
    /// How often everything is compared in full, as a net under the signals.
    pub reconcile: Duration,
    /// What of the host is kept free of runners.
    pub reserve: Reserve,
    /// TCP addresses for `/health`, `/status` and `/metrics`, read-only; none by default.
    pub listen: Vec<std::net::SocketAddr>,
    /// Holds the token with which these addresses take commands too. The daemon's unit loads it as
    /// credential `api-token`.
    pub api_token_file: Option<PathBuf>,
}

/// The `[reserve]` table. What is absent follows from the host's size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Room on the filesystems of `state_dir` and `layer_dir`.
    pub disk: Option<ByteSize>,
    /// Memory that could be given to somebody (`MemAvailable`).
    pub memory: Option<ByteSize>,
}

/// The `[github]` table.
#[derive(Debug, Clone)]
pub struct GitHubConfig {
    /// Which runners are ours to register.
    pub scope: Scope,
    /// The API's base, without a trailing slash in its path.
    pub api_url: Url,
    /// `X-GitHub-Api-Version`.
    pub api_version: String,
    /// What lets us in.
    pub login: LoginConfig,
    /// How long one request may take.
    pub timeout: Duration,
}

/// What lets us in at GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginConfig {
    /// A token of a person's.
    Token {
        /// Holds it alone.
        file: PathBuf,
    },
    /// A GitHub App, installed where the runners are registered.
    App {
        /// Its client id or its number.
        id: String,
        /// Holds a private key of it, in PEM.
        key_file: PathBuf,
    },
}

impl LoginConfig {
    /// The file with the secret.
    #[must_use]
    pub fn file(&self) -> &Path {
        match self {
            Self::Token { file } => file,
            Self::App { key_file, .. } => key_file,
        }
    }

    /// Its key in the configuration.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Token { .. } => "github.token_file",
            Self::App { .. } => "github.app.key_file",
        }
    }

    /// Under which name the daemon's unit loads the file as a credential of systemd's.
    #[must_use]
    pub fn credential(&self) -> &'static str {
        match self {
            Self::Token { .. } => "github-token",
            Self::App { .. } => "github-app-key",
        }
    }
}

/// Where runners are registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// `https://github.com/<owner>/<repo>`
    Repository {
        /// Owner.
        owner: String,
        /// Repository.
        repo: String,
    },
    /// `https://github.com/<org>`
    Organization {
        /// Organisation.
        org: String,
    },
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository { owner, repo } => write!(f, "{owner}/{repo}"),
            Self::Organization { org } => f.write_str(org),
        }
    }
}

/// The `[network]` table.
#[derive(Debug, Clone)]
pub struct Network {
    /// Cut into one /30 per place.
    pub block: Ipv4Block,
    /// Written to each container's `/etc/resolv.conf`, and the only DNS servers it may reach.
    pub resolvers: Vec<Ipv4Addr>,
    /// First host uid of place 0; a multiple of 65,536.
    pub uid_base: u32,
}

/// One `[pools.<name>]` table.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Its name.
    pub name: PoolName,
    /// Place of its slot 1; slot `s` has place `offset + s - 1`. Fixed in the file and not counted
    /// from the other pools, so that adding a pool moves no living container's addresses.
    pub offset: u32,
    /// Labels, as written.
    pub labels: Vec<String>,
    /// Runner group, by name.
    pub runner_group: String,
    /// Registered and waiting for a job.
    pub min_idle: u16,
    /// Booted and not registered.
    pub min_spare: u16,
    /// All lives together.
    pub max_runners: u16,
    /// What they boot.
    pub image: Image,
    /// What they write to.
    pub layer: Layer,
    /// What they may use.
    pub limits: RunnerLimits,
    /// What all its runners together may use.
    pub total: Total,
    /// Jobs may run docker, in their own container.
    pub docker: bool,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Where jobs check out, absolute in the container.
    pub work_folder: String,
    /// How far jobs get.
    pub egress: Egress,
    /// Where they get besides, private addresses included.
    pub allow: Vec<Allow>,
    /// A Nix of each container's own, if its jobs have one.
    pub nix: Option<Nix>,
}

/// What the Nix in a container is told. The host's is never reachable.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Nix {
    /// Caches, besides those of the image's own `nix.conf`.
    pub substituters: Vec<String>,
    /// Their keys, besides the image's own.
    pub trusted_public_keys: Vec<String>,
    /// What `nix-store --load-db` reads, as a path in the container: which of the store's paths are
    /// whole, and what they refer to.
    pub registration: Option<PathBuf>,
}

/// What a container boots.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Image {
    /// Any systemd userland in a directory, shared read-only by all lives.
    Directory {
        /// Its root.
        path: PathBuf,
        /// The runner's own directory in it: always tmpfs, as the decoded config lands there.
        runner_root: PathBuf,
    },
    /// A NixOS system closure over the store.
    Nixos {
        /// The system, `<store>/<hash>-nixos-system-…`.
        system: PathBuf,
        /// The store, bound read-only at `/nix/store`.
        store: PathBuf,
        /// The runner's own directory: always tmpfs.
        runner_root: PathBuf,
    },
}

/// What a life writes to; gone when its mount is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Layer {
    /// Memory, counted as the container's.
    Tmpfs {
        /// Its hard size.
        size: ByteSize,
    },
    /// A filesystem of its own in an unlinked file below `layer_dir`.
    Disk {
        /// Its hard size.
        size: ByteSize,
    },
}

/// What one runner may use; rendered into its unit template.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RunnerLimits {
    /// `MemoryMax`, swap excluded.
    pub memory: ByteSize,
    /// `CPUQuota`, in cores; unlimited if absent.
    pub cpu: Option<Cpu>,
    /// `TasksMax`.
    pub tasks: u32,
    /// `IOWeight`, 1 to 10,000.
    pub io_weight: u16,
    /// `LimitNOFILE`.
    pub open_files: u32,
}

/// What all runners of a pool together may use; rendered into the pool's slice. No cap where absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Total {
    /// `MemoryMax`, swap excluded.
    pub memory: Option<ByteSize>,
    /// `CPUQuota`, in cores.
    pub cpu: Option<Cpu>,
    /// `TasksMax`.
    pub tasks: Option<u32>,
}

impl Config {
    /// The pool with this name.
    #[must_use]
    pub fn pool(&self, name: &PoolName) -> Option<&PoolConfig> {
        self.pools.iter().find(|pool| pool.name == *name)
    }

    /// Where a slot lives on the host; `None` if the configuration has no such slot.
    #[must_use]
    pub fn place(&self, id: &SlotId) -> Option<Place<'_>> {
        let pool = self.pool(&id.pool)?;
        (id.slot.number() <= pool.max_runners).then(|| Place::new(self, pool, id.slot))
    }

    /// What is no mistake, and may not be what was meant.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for address in self.listen.iter().filter(|a| !a.ip().is_loopback()) {
            let token = match self.api_token_file {
                Some(_) => ", and the token of api_token_file crosses the network in the clear",
                None => "",
            };
            notes.push(format!(
                "listen: {address} is not loopback: whoever reaches it reads the status{token}; \
                 a proxy with TLS in front of 127.0.0.1 does neither"
            ));
        }
        for pool in self.pools.iter().filter(|p| p.egress != Egress::Internet) {
            notes.push(format!(
                "pools.{}: with egress = \"{}\" runners reach GitHub only through what allow names",
                pool.name,
                pool.egress.as_str()
            ));
        }
        notes
    }

    /// Every slot of every pool.
    pub fn slots(&self) -> impl Iterator<Item = SlotId> + '_ {
        self.pools.iter().flat_map(|pool| {
            Slot::first(pool.max_runners).map(|slot| SlotId {
                pool: pool.name.clone(),
                slot,
            })
        })
    }

    /// The API socket, below the run directory.
    #[must_use]
    pub fn api_socket(&self) -> PathBuf {
        self.run_dir.join(API_SOCKET)
    }

    /// The daemon's own directory, in which that socket really lies: the run directory is root's.
    #[must_use]
    pub fn api_dir(&self) -> PathBuf {
        self.run_dir.join("api")
    }

    /// Root-owned parent of all life records.
    #[must_use]
    pub fn records_dir(&self) -> PathBuf {
        self.run_dir.join("lives")
    }

    /// Root-owned: what was found of the firewall.
    #[must_use]
    pub fn firewall_dir(&self) -> PathBuf {
        self.run_dir.join("firewall")
    }

    /// Root-owned 0750 parent of the slots' socket directories.
    #[must_use]
    pub fn slots_dir(&self) -> PathBuf {
        self.run_dir.join("slots")
    }
}

impl PoolConfig {
    /// Names what a life of this pool is started from. A life with another generation is old.
    ///
    /// Covers what the launcher and the unit template use; labels and the like are GitHub's and
    /// are used at the mint, except that a registered runner keeps the labels it was minted with.
    #[must_use]
    pub fn generation(&self) -> String {
        let facts = serde_json::json!({
            "image": self.image, "layer": self.layer, "limits": self.limits, "docker": self.docker,
            "labels": self.labels, "group": self.runner_group, "work_folder": self.work_folder,
            // What a container finds in its resolv.conf. The rules themselves are loaded for all.
            "dns": self.egress.has_dns(),
            "nix": self.nix,
        });
        let digest = Sha256::digest(facts.to_string().as_bytes());
        let (first, _) = digest.split_at(8);
        let number = first
            .iter()
            .fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        format!("{number:016x}")
    }

    /// The longest a unit of this pool may live: every stage's bound in a row, and a day in which
    /// nobody enforces them. The template's `RuntimeMaxSec`, a last net that cuts no job short.
    ///
    /// While the daemon is away, or GitHub does not say whether an idle runner may be ended, that
    /// runner waits beyond its age, and the job that it is given then has all of its time.
    #[must_use]
    pub fn longest_lifetime(&self) -> Duration {
        let t = &self.timeouts;
        t.boot + t.spare_age + t.registration + t.idle_age + t.job + t.stop + ABSENCE
    }
}

impl RunnerLimits {
    /// What of its memory a container's job may use. The rest is the listener's and systemd's, which
    /// live while a job is killed for want of memory: GitHub's listener takes about 100 MB.
    #[must_use]
    pub fn job_memory(&self) -> ByteSize {
        ByteSize(self.memory.0 - (self.memory.0 / 8).min(128 << 20))
    }

    /// What of its tasks: a listener that cannot start a thread does not renew its job's lock.
    #[must_use]
    pub fn job_tasks(&self) -> u32 {
        self.tasks - (self.tasks / 4).min(128)
    }
}

impl Image {
    /// The directory inside the container in which the listener writes its decoded config.
    #[must_use]
    pub fn runner_root(&self) -> &Path {
        match self {
            Self::Directory { runner_root, .. } | Self::Nixos { runner_root, .. } => runner_root,
        }
    }
}

impl Layer {
    /// The hard size.
    #[must_use]
    pub fn size(&self) -> ByteSize {
        match self {
            Self::Tmpfs { size } | Self::Disk { size } => *size,
        }
    }
}
