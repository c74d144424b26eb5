//! The status of the daemon: one versioned document behind one watch channel.
//!
//! `/status` is its JSON, `status` its text and `/metrics` its numbers. The controller publishes it
//! after every change. Its readers change nothing.

mod demand;
mod history;
mod lookup;
mod measures;
mod plan;
mod version;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

pub use demand::{
    DeliveryOutcome, DemandStatus, JobRow, PoolDemandStatus, QueueStatus, RedeliveryStatus,
    ScaleSetStatus, WebhookStatus,
};
pub use history::{HistoryPage, HistoryQuery, MAX_PAGE};
pub use measures::{Histogram, Measure, Unit};
pub use plan::{BudgetResource, BudgetUse, TargetStatus};
pub use pool::{
    Cause, Conclusion, FailureKind, Freshness, GroupProblem, Invocation, JobNote, JobResult,
    JobStage, PaceReason, PhaseEntry, PhaseKind, Resource, RunnerId, RunnerVersion, SetState,
    Shortages, SlotId, Verdict, VerdictRecord, VersionEnd, WaitReason,
};
pub use version::{VersionRemedy, VersionStatus};

/// Version of the document. A field may be added within a version, but none changes its meaning.
pub const VERSION: u32 = 1;

/// State of the daemon.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DaemonState {
    /// It has not taken over the host's runners yet.
    #[default]
    Starting,
    /// It starts and registers runners.
    Running,
    /// It knows everything and starts nothing, as its configuration says.
    Observing,
    /// It starts no runner, and jobs that run are left to finish.
    Draining,
    /// A drain is done: no runner is left.
    Drained,
    /// It ends and deregisters all runners, jobs included.
    Clearing,
    /// Clearing is done: neither a runner nor a registration is left.
    Cleared,
}

/// The status document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// Id of the host.
    pub host: String,
    /// GitHub scope of the runners: `owner/repo` or `org`. Several are separated by commas.
    pub scope: String,
    /// Version of the program.
    pub program: String,
    /// State of the daemon.
    pub state: DaemonState,
    /// The clearings that operators requested.
    #[serde(default)]
    pub clearing: ClearingStatus,
    /// Reasons for which no runner starts or registers; empty if runners do.
    pub closed: Vec<String>,
    /// Time of the document, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Start of the daemon, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// State of the calls to GitHub, in all scopes together.
    pub github: GitHubStatus,
    /// The configured scopes. A daemon of an earlier version, which has one, does not list it.
    #[serde(default)]
    pub scopes: Vec<ScopeStatus>,
    /// Error of the last full reconcile with systemd.
    pub systemd_error: Option<String>,
    /// Problem of the firewall.
    #[serde(default)]
    pub firewall_error: Option<String>,
    /// Resources that the host runs short of, each with the reason. Meanwhile no runner starts or
    /// registers.
    #[serde(rename = "short", default)]
    pub shortages: Shortages,
    /// Error of the last write to the records.
    pub records_error: Option<String>,
    /// Protections that this host lacks, in words. They keep no runner from starting.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Names of registrations without a runner, which are being deleted.
    pub strays: Vec<String>,
    /// Names of online runners that have this host's name and no container here.
    #[serde(default)]
    pub foreign: Vec<String>,
    /// Reasons for which registrations or deletions wait, other than `closed`.
    #[serde(default)]
    pub gates: Vec<GateStatus>,
    /// Scopes of earlier configurations.
    #[serde(default)]
    pub former: Vec<FormerScopeStatus>,
    /// Jobs of GitHub's queue; `None` without `[webhook]`.
    #[serde(default)]
    pub demand: Option<DemandStatus>,
    /// Traces of runners; `None` without `[traces]`.
    #[serde(default)]
    pub traces: Option<TracesStatus>,
    /// Use of each resource that the budget of the host bounds.
    #[serde(default)]
    pub budget: BTreeMap<BudgetResource, BudgetUse>,
    /// The pools, sorted by name.
    pub pools: Vec<PoolStatus>,
    /// Runners that ended last, newest first, at most 20.
    pub recent: Vec<VerdictRecord>,
}

/// The clearings that operators requested. Each has a number, which grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearingStatus {
    /// Number of the newest clearing that was requested from this daemon, 0 if none was.
    pub requested: u64,
    /// Number of the newest clearing after which no runner was left, 0 if there is none.
    pub done: u64,
    /// True if the pools are to refill as soon as the command that requested the clearing has checked it.
    pub refills: bool,
}

/// Traces of the runners that ended since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracesStatus {
    /// Number of traces that the collector took.
    pub sent: u64,
    /// Number of traces that are lost.
    pub dropped: u64,
    /// Number of traces that wait.
    pub waiting: u64,
    /// Reason why the last request to the collector failed.
    pub error: Option<String>,
}

/// A gate that is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateStatus {
    /// The gate.
    pub gate: Gate,
    /// The scope whose calls wait: its configured name, or a former scope and its API. `None` for a scope
    /// without a name, and for a daemon of an earlier version.
    #[serde(default)]
    pub scope: Option<String>,
    /// The reason, in words.
    pub reason: String,
}

/// A gate through which calls to GitHub pass.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    /// GitHub's rate limit: no call is sent.
    RateLimit,
    /// Mints are slow, because too many of the last ones left a registration without a runner.
    Orphans,
    /// The registrations of a minute reached their maximum, or GitHub lowered it.
    Pace,
    /// Deletions of registrations without a runner failed, and the next one waits.
    Deletions,
}

/// A scope in which this host registered runners before its configuration named another one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerScopeStatus {
    /// The scope and its API, or `None` for runners that a version without scopes registered.
    pub scope: Option<String>,
    /// Reason why GitHub cannot be asked about it.
    pub error: Option<String>,
    /// Names of runners that are registered in it and have a container here.
    pub runners: Vec<String>,
    /// Names of registrations in it without a container, which are being deleted.
    pub strays: Vec<String>,
}

/// A configured scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeStatus {
    /// Its name in the configuration; `None` if it is the only one and has none.
    pub name: Option<String>,
    /// The scope: `owner/repo`, `org` or `enterprises/name`.
    pub scope: String,
    /// State of the calls to GitHub for it.
    pub github: GitHubStatus,
    /// Times from a request to GitHub until its whole answer, by operation.
    #[serde(default)]
    pub answer_times: BTreeMap<String, Histogram>,
    /// Rate limits of its credential, as GitHub's last answers announced them.
    #[serde(default)]
    pub rate_limits: Vec<RateLimitStatus>,
    /// Names of registrations in it without a runner, which are being deleted.
    pub strays: Vec<String>,
    /// Names of online runners in it that have this host's name and no container here.
    pub foreign: Vec<String>,
}

/// A rate limit of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimitStatus {
    /// Name of the credential. Scopes with the same token have the same.
    pub credential: String,
    /// GitHub's name of what is limited, such as `core`; empty if an answer had none.
    pub resource: String,
    /// Number of calls in a whole window.
    pub limit: u64,
    /// Number of calls that are left in the window; all of them once it has been reset.
    pub remaining: u64,
    /// Time of the reset by GitHub's clock, in seconds since 1970.
    pub reset_unix_s: u64,
}

/// State of the calls to GitHub.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitHubStatus {
    /// Time of the last successful call, in milliseconds since 1970.
    pub last_ok_unix_ms: Option<u64>,
    /// The last failure, in words, with GitHub's request id. A successful call removes it.
    pub error: Option<String>,
    /// Time of that failure, in milliseconds since 1970.
    pub error_unix_ms: Option<u64>,
    /// Number of calls since the daemon started, by operation and outcome.
    pub calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// Number of runners in the last list of the scope, those of other hosts included.
    pub listed: Option<u64>,
    /// Address of the web pages, without a slash at the end.
    #[serde(default)]
    pub server_url: Option<String>,
    /// Pace of this host's registrations.
    #[serde(default)]
    pub pace: Option<PaceStatus>,
}

/// Pace of registrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaceStatus {
    /// Maximum number of registrations in a minute, as it is now.
    pub mints_per_minute: u64,
    /// The configured maximum.
    pub configured: u64,
    /// Number of registrations in the last minute.
    pub last_minute: u64,
    /// Reason for the maximum.
    pub paced_by: PaceReason,
}

/// One pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Name of the pool.
    pub name: String,
    /// Configured name of the scope in which its runners register, if the scope has one.
    #[serde(default)]
    pub scope: Option<String>,
    /// Labels of its runners.
    pub labels: Vec<String>,
    /// Runner group of its runners; `None` for a pool of a repository, and before GitHub told of it.
    #[serde(default)]
    pub group: Option<GroupStatus>,
    /// Version of its newest runner that GitHub listed; `None` before the first.
    #[serde(default)]
    pub runner_version: Option<VersionStatus>,
    /// Desired numbers of runners.
    pub wanted: Wanted,
    /// Number of runners by phase. Every phase is there.
    pub phases: BTreeMap<PhaseKind, u64>,
    /// Number of runners that ended since the daemon started, by verdict.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Number of jobs that ended since the daemon started, by result.
    #[serde(default)]
    pub results: BTreeMap<JobResult, u64>,
    /// Sizes of its runners that ended since the daemon started. Each counts at its end.
    #[serde(default)]
    pub measures: BTreeMap<Measure, Histogram>,
    /// Number of failures among [`PoolStatus::verdicts`].
    pub failed: u64,
    /// Failures that delay new tries.
    pub backoffs: Vec<BackoffStatus>,
    /// Demand for its runners; `None` without `[webhook]`.
    #[serde(default)]
    pub demand: Option<PoolDemandStatus>,
    /// Numbers of runners that it should have now; `None` before the first plan.
    #[serde(default)]
    pub target: Option<TargetStatus>,
    /// Its runners.
    pub runners: Vec<RunnerStatus>,
}

impl PoolStatus {
    /// Returns the number of runners in a phase.
    #[must_use]
    pub fn count(&self, phase: PhaseKind) -> u64 {
        self.phases.get(&phase).copied().unwrap_or_default()
    }
}

/// A runner group, as GitHub told of it at the start of the daemon or in the last hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its configured name.
    pub name: String,
    /// Reasons for which jobs do not come to its runners.
    pub problems: Vec<GroupProblem>,
}

/// Desired numbers of runners.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Runners that are registered and wait for a job.
    pub idle: u16,
    /// Spares: booted containers that are not registered.
    pub spare: u16,
    /// Maximum number of runners.
    pub max: u16,
    /// Entry of the schedule that holds, such as `mon,tue 08:00-18:00 Europe/Berlin`; `None` outside of its hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
}

/// Failures of one kind in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackoffStatus {
    /// Kind of failure.
    #[serde(rename = "trouble")]
    pub failure: FailureKind,
    /// Number of failures.
    pub failures: u32,
    /// Milliseconds until the next try.
    pub retry_in_ms: u64,
    /// The last failure, in words.
    pub reason: String,
}

/// One runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerStatus {
    /// Its slot, which is also the name of the machine.
    #[serde(rename = "machine")]
    pub slot: SlotId,
    /// Its unit.
    pub unit: String,
    /// Its phase.
    pub phase: PhaseKind,
    /// Reason for its retirement.
    pub cause: Option<Cause>,
    /// True if it is idle here, and GitHub listed it as offline twice in a row.
    #[serde(default)]
    pub unreachable: bool,
    /// True if another program took the address from its link, so it reaches nothing.
    #[serde(default)]
    pub address_lost: bool,
    /// Milliseconds since its start.
    pub age_ms: u64,
    /// Milliseconds since the start of the phase.
    pub phase_ms: u64,
    /// The phases so far.
    #[serde(default)]
    pub phases: Vec<PhaseEntry>,
    /// Its name at GitHub.
    pub runner: Option<String>,
    /// GitHub's id of it.
    pub runner_id: Option<RunnerId>,
    /// systemd's id of its start.
    pub invocation: Option<Invocation>,
    /// Its job.
    pub job: Option<JobStatus>,
    /// Version of its listener, once GitHub listed it. Not to be trusted.
    #[serde(default)]
    pub version: Option<RunnerVersion>,
}

impl RunnerStatus {
    /// Returns the name of its machine, which is the name of its slot.
    #[must_use]
    pub fn machine(&self) -> String {
        self.slot.to_string()
    }

    /// Returns the status of a runner of which nothing else is known.
    #[must_use]
    pub fn new(slot: SlotId, phase: PhaseKind) -> Self {
        Self {
            unit: slot.unit(),
            slot,
            phase,
            cause: None,
            unreachable: false,
            address_lost: false,
            age_ms: 0,
            phase_ms: 0,
            phases: Vec::new(),
            runner: None,
            runner_id: None,
            invocation: None,
            job: None,
            version: None,
        }
    }
}

/// A running job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The job's description of itself. Not to be trusted.
    #[serde(flatten)]
    pub note: JobNote,
    /// Milliseconds since its start.
    pub running_ms: u64,
    /// Milliseconds after which the daemon ends it: the pool's `timeouts.job`.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document of an earlier version, with every field that it had.
    const WHOLE: &str = include_str!("../../fuzz/corpus/status_text/whole");

    #[test]
    fn an_earlier_document_is_read_and_written_with_the_same_fields() {
        let before: serde_json::Value = serde_json::from_str(WHOLE).unwrap();
        let status: Status = serde_json::from_value(before.clone()).unwrap();
        let pool = &status.pools[0];
        assert_eq!(pool.runners[0].phase, PhaseKind::Busy);
        assert_eq!(pool.phases[&PhaseKind::Busy], 1);
        assert_eq!(pool.verdicts[&Verdict::JobDone], 3);
        assert_eq!(pool.backoffs[0].failure, FailureKind::Boot);
        assert_eq!(status.recent[0].verdict, Verdict::JobDone);
        let after = serde_json::to_value(&status).unwrap();
        contains(&after, &before);
    }

    /// Checks that every value of `part` is at its place in `whole`.
    fn contains(whole: &serde_json::Value, part: &serde_json::Value) {
        match part {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    contains(&whole[name], value);
                }
            }
            serde_json::Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    contains(&whole[index], value);
                }
            }
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => assert_eq!(whole, part),
        }
    }

    #[test]
    fn states_are_named_in_lower_case() {
        let names = [
            "starting",
            "running",
            "observing",
            "draining",
            "drained",
            "clearing",
            "cleared",
        ];
        let all = <DaemonState as strum::VariantArray>::VARIANTS;
        assert_eq!(
            all.iter().map(ToString::to_string).collect::<Vec<_>>(),
            names
        );
        assert_eq!(serde_json::to_value(all).unwrap(), serde_json::json!(names));
    }
}
