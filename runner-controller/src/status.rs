//! What the daemon shows of itself: one document, versioned, behind one watch channel.
//!
//! `/status` is its JSON, `status` its text, `/metrics` its numbers. It is made by the controller
//! after every change; the faces read it and change nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::pool::{Cause, FailureKind, JobNote, PhaseKind, Resource, Shortages, Verdict};
pub use crate::world::VerdictRecord;

use crate::pool::{Invocation, RunnerId, SlotId};

/// The document's version. A field may be added within a version, none changes its meaning.
pub const VERSION: u32 = 1;

/// State of the daemon.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    strum::Display,
    strum::EnumString,
    strum::AsRefStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DaemonState {
    /// It has not taken over the host's runners yet.
    #[default]
    Starting,
    /// It starts and registers runners.
    Running,
    /// It starts no runner, and jobs that run are left to finish.
    Draining,
    /// A drain is done: no runner is left.
    Drained,
    /// It ends and deregisters all runners, jobs included.
    Clearing,
    /// Clearing is done: neither a runner nor a registration is left.
    Cleared,
}

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
    /// State of the daemon.
    pub state: DaemonState,
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
    #[serde(rename = "short", default)]
    pub shortages: Shortages,
    /// Why records cannot be written, if so.
    pub records_error: Option<String>,
    /// Registrations that no container owns and that are being deleted, by name.
    pub strays: Vec<String>,
    /// The pools, by name.
    pub pools: Vec<PoolStatus>,
    /// How lives ended, newest first, at most 20.
    pub recent: Vec<VerdictRecord>,
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
    pub phases: BTreeMap<PhaseKind, u64>,
    /// Lives that ended since the daemon started, by verdict.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Lives among them that an operator should look at.
    pub failed: u64,
    /// What keeps failing.
    pub backoffs: Vec<BackoffStatus>,
    /// Each container.
    pub runners: Vec<RunnerStatus>,
}

impl PoolStatus {
    /// Returns the number of runners in a phase.
    #[must_use]
    pub fn count(&self, phase: PhaseKind) -> u64 {
        self.phases.get(&phase).copied().unwrap_or_default()
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackoffStatus {
    /// Kind of failure.
    #[serde(rename = "trouble")]
    pub failure: FailureKind,
    /// Failures in a row.
    pub failures: u32,
    /// Milliseconds until the next try.
    pub retry_in_ms: u64,
    /// The last failure, in words.
    pub reason: String,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerStatus {
    /// The slot, which is also the machine's name.
    #[serde(rename = "machine")]
    pub slot: SlotId,
    /// Its unit.
    pub unit: String,
    /// Its phase.
    pub phase: PhaseKind,
    /// Why it is being ended, if it is.
    pub cause: Option<Cause>,
    /// Milliseconds since it was started.
    pub age_ms: u64,
    /// Milliseconds in this phase.
    pub phase_ms: u64,
    /// Its name at GitHub.
    pub runner: Option<String>,
    /// Its id at GitHub.
    pub runner_id: Option<RunnerId>,
    /// systemd's name for this start.
    pub invocation: Option<Invocation>,
    /// Its job. What a job says of itself is not to be trusted.
    pub job: Option<JobStatus>,
}

impl RunnerStatus {
    /// Returns the status of a runner of which nothing else is known.
    #[must_use]
    pub fn new(slot: SlotId, phase: PhaseKind) -> Self {
        Self {
            unit: slot.unit(),
            slot,
            phase,
            cause: None,
            age_ms: 0,
            phase_ms: 0,
            runner: None,
            runner_id: None,
            invocation: None,
            job: None,
        }
    }
}

/// A running job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The job, as it described itself.
    #[serde(flatten)]
    pub note: JobNote,
    /// Milliseconds since it started.
    pub running_ms: u64,
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
            "starting", "running", "draining", "drained", "clearing", "cleared",
        ];
        let all = <DaemonState as strum::VariantArray>::VARIANTS;
        assert_eq!(
            all.iter().map(ToString::to_string).collect::<Vec<_>>(),
            names
        );
        assert_eq!(serde_json::to_value(all).unwrap(), serde_json::json!(names));
    }
}
