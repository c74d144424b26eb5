//! What the daemon shows of itself: one document, versioned, behind one watch channel.
//!
//! `/status` is its JSON, `status` its text, `/metrics` its numbers. It is made by the controller
//! after every change; the faces read it and change nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The document's version. A field may be added within a version, none changes its meaning.
pub const VERSION: u32 = 1;

/// Everything that is shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The host id.
    pub host: String,
    /// Where runners are registered: `owner/repo` or `org`.
    pub scope: String,
    /// This program's version.
    pub program: String,
    /// `running`, `draining`, `drained`, `clearing` or `cleared`.
    pub state: String,
    /// Why no new runner is started or registered; empty when they are.
    pub closed: Vec<String>,
    /// Milliseconds since 1970 at which this was made.
    pub at_unix_ms: u64,
    /// When the daemon started, milliseconds since 1970.
    pub since_unix_ms: u64,
    /// How things stand with GitHub.
    pub github: GitHubStatus,
    /// Why systemd cannot be talked to, if so.
    pub systemd_error: Option<String>,
    /// What is wrong with the firewall, if anything is known to be.
    #[serde(default)]
    pub firewall_error: Option<String>,
    /// What the host runs short of, by name, each with its reason. While there is one, nothing new is
    /// started or registered.
    #[serde(default)]
    pub short: BTreeMap<String, String>,
    /// Why records cannot be written, if so.
    pub records_error: Option<String>,
    /// Registrations that no container owns and that are being deleted, by name.
    pub strays: Vec<String>,
    /// The pools, by name.
    pub pools: Vec<PoolStatus>,
    /// How lives ended, newest first, at most 20.
    pub recent: Vec<EndedStatus>,
}

/// How things stand with GitHub.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitHubStatus {
    /// When a call last worked, milliseconds since 1970.
    pub last_ok_unix_ms: Option<u64>,
    /// The last failure, in words, with GitHub's request id; gone when a call works again.
    pub error: Option<String>,
    /// Milliseconds since 1970 of that failure.
    pub error_unix_ms: Option<u64>,
    /// Calls sent since the daemon started, by operation and outcome.
    pub calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// Runners of this scope in the last list, whoever owns them.
    pub listed: Option<u64>,
}

/// One pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// The labels its runners are registered with.
    pub labels: Vec<String>,
    /// What is wanted.
    pub wanted: Wanted,
    /// Runners by phase; every phase is there.
    pub phases: BTreeMap<String, u64>,
    /// Lives that ended since the daemon started, by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Lives among them that an operator should look at.
    pub failed: u64,
    /// What keeps failing.
    pub backoffs: Vec<BackoffStatus>,
    /// Each container.
    pub runners: Vec<RunnerStatus>,
}

/// What a pool is wanted to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Registered and waiting.
    pub idle: u16,
    /// Booted and not registered.
    pub spare: u16,
    /// All together at most.
    pub max: u16,
}

/// Something that keeps failing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackoffStatus {
    /// What it is: `boot`, of mints `unauthorized`, `forbidden`, `not_found`, `invalid`, `limited` or
    /// for any other reason `mint`, of runners `expired` or `version`.
    pub failure: String,
    /// Failures in a row.
    pub failures: u32,
    /// Milliseconds until the next try.
    pub retry_in_ms: u64,
    /// The last failure, in words.
    pub reason: String,
}

/// One container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerStatus {
    /// The slot, which is also the machine's name.
    pub machine: String,
    /// Its unit.
    pub unit: String,
    /// Its phase.
    pub phase: String,
    /// Why it is being ended, if it is.
    pub cause: Option<String>,
    /// Milliseconds since it was started.
    pub age_ms: u64,
    /// Milliseconds in this phase.
    pub phase_ms: u64,
    /// Its name at GitHub.
    pub runner: Option<String>,
    /// Its id at GitHub.
    pub runner_id: Option<u64>,
    /// systemd's name for this start.
    pub invocation: Option<String>,
    /// Its job. What a job says of itself is not to be trusted.
    pub job: Option<JobStatus>,
}

/// A job, as it describes itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// `owner/repo`.
    pub repository: String,
    /// The workflow's name.
    pub workflow: String,
    /// The job's key in the workflow.
    pub job: String,
    /// The run's id.
    pub run_id: String,
    /// Milliseconds since it started.
    pub running_ms: u64,
}

/// A life that is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedStatus {
    /// The slot.
    pub machine: String,
    /// How and why it ended.
    pub verdict: String,
    /// Its name at GitHub, if it was registered.
    pub runner: Option<String>,
    /// When it ended, milliseconds since 1970.
    pub ended_unix_ms: u64,
    /// Milliseconds from its start to its end.
    pub lived_ms: u64,
    /// Milliseconds its job ran.
    pub job_ms: Option<u64>,
    /// How its container exited, in words.
    pub exit: Option<String>,
    /// Highest memory use, bytes, where the kernel counts it.
    pub memory_peak_bytes: Option<u64>,
    /// Processes the kernel killed for want of memory.
    pub oom_kills: u64,
}
