//! Demand: the jobs that wait for runners, and the deliveries that told of them.

use std::collections::BTreeMap;

use pool::{Conclusion, JobStage, SetState, SlotId, WaitReason};
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

use crate::Histogram;

/// Demand of the whole host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandStatus {
    /// Deliveries of GitHub, if this host takes them.
    pub webhook: Option<WebhookStatus>,
    /// Readings of GitHub's API, one for each scope that is read.
    #[serde(default)]
    pub queues: Vec<QueueStatus>,
    /// Scale sets, one for each pool that has one.
    #[serde(default)]
    pub scale_sets: Vec<ScaleSetStatus>,
    /// Deliveries that GitHub was asked for once more, for each hook that is known.
    #[serde(default)]
    pub redeliveries: Vec<RedeliveryStatus>,
    /// Jobs that wait and that a pool serves, at most 100, the one that waits longest first.
    pub waiting: Vec<JobRow>,
    /// Jobs that runners of this host have, at most 100.
    pub running: Vec<JobRow>,
    /// Jobs of this host that ended last, at most 20, newest first.
    pub ended: Vec<JobRow>,
    /// Jobs that wait and that no pool serves, at most 20, the one that waits longest first. GitHub's own runners
    /// or other hosts may serve them.
    pub unserved: Vec<JobRow>,
    /// Number of all jobs that wait and that no pool serves.
    pub unserved_count: u64,
    /// Number of jobs that wait for an approval.
    pub held_count: u64,
}

/// Deliveries since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookStatus {
    /// Number of deliveries by outcome.
    pub deliveries: BTreeMap<DeliveryOutcome, u64>,
    /// Time of the last delivery with a right signature, pings aside, in milliseconds since 1970.
    pub last_unix_ms: Option<u64>,
}

/// Readings of jobs from GitHub's API in one scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// The scope, and its API.
    pub scope: String,
    /// Time of the last reading that succeeded, in milliseconds since 1970.
    pub last_unix_ms: Option<u64>,
    /// Number of runs in the last reading of the whole queue; `None` if the scope is not a repository.
    pub runs: Option<u64>,
    /// True if the queue has older runs, whose jobs were not read.
    pub has_more_runs: bool,
    /// Error of the last reading, if it failed. The jobs that were known stay.
    pub error: Option<String>,
}

/// Deliveries of one hook that failed, and that GitHub was asked for once more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedeliveryStatus {
    /// The scope, and its API.
    pub scope: String,
    /// The hook in words: `hook 7 of acme`, or the App's.
    pub hook: String,
    /// Time of the last look at failed deliveries that succeeded, in milliseconds since 1970.
    pub last_unix_ms: Option<u64>,
    /// Number of deliveries that GitHub was asked for since the daemon started.
    pub repeated: u64,
    /// True if GitHub has more failed deliveries than a look reads.
    pub has_more: bool,
    /// Error of the last look, if it failed. Deliveries that arrive are taken all the same.
    pub error: Option<String>,
}

/// Outcome of a delivery.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryOutcome {
    /// It told something about a job, which is on record.
    Accepted,
    /// It is on record already.
    Duplicate,
    /// GitHub's test of a new hook.
    Ping,
    /// It is not about the state of a job.
    Ignored,
    /// Its repository is not in a scope of this host.
    OutsideScope,
    /// It has no signature.
    Unsigned,
    /// Its signature is wrong.
    WrongSignature,
    /// It cannot be read.
    Malformed,
    /// It is larger than GitHub's largest delivery.
    TooLarge,
    /// It could not be put on record, so GitHub has to send it again.
    NotRecorded,
}

/// Demand for runners of one pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolDemandStatus {
    /// Number of jobs that wait for a runner.
    pub waiting: u64,
    /// Number of jobs that its runners have, as GitHub tells.
    pub running: u64,
    /// Queue time of the job that waits longest, in milliseconds since 1970.
    pub oldest_unix_ms: Option<u64>,
    /// Reason for which its jobs wait.
    pub waits_for: Option<WaitReason>,
    /// Times from the queue to the start, since the daemon started.
    pub waits: Histogram,
}

/// A job of GitHub's queue. Its texts come from authors of workflows, so they are not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// GitHub's id of it; of a job of a scale set, a number for its assignment.
    pub id: u64,
    /// Scope in which it was seen, and its API.
    pub scope: String,
    /// `owner/repo`.
    pub repository: String,
    /// Id of its run.
    pub run_id: u64,
    /// Attempt of its run.
    pub attempt: u32,
    /// Name of its workflow.
    pub workflow: String,
    /// Its name.
    pub name: String,
    /// Labels that it asks for.
    pub labels: Vec<String>,
    /// Its stage.
    pub stage: JobStage,
    /// Time at which it was queued, in milliseconds since 1970.
    pub queued_unix_ms: u64,
    /// Its start, in milliseconds since 1970.
    pub started_unix_ms: Option<u64>,
    /// Its end, in milliseconds since 1970.
    pub ended_unix_ms: Option<u64>,
    /// Its conclusion.
    pub conclusion: Option<Conclusion>,
    /// Pool that serves it.
    pub pool: Option<String>,
    /// Slot of the runner that took it.
    pub machine: Option<SlotId>,
    /// Reason for which it waits.
    pub waits_for: Option<WaitReason>,
}

/// Scale set of one pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleSetStatus {
    /// The pool.
    pub pool: String,
    /// Name of the set.
    pub name: String,
    /// GitHub's id of the set, once it is known.
    pub id: Option<u64>,
    /// State of its session.
    pub state: SetState,
    /// Number of jobs that the pool can have altogether, as the last poll told GitHub.
    pub capacity: Option<u32>,
    /// Number of jobs that GitHub counts as assigned to the set, those that run included.
    pub assigned: Option<u64>,
    /// Time of the last answer that was a success, in milliseconds since 1970.
    pub last_unix_ms: Option<u64>,
    /// Number of messages since the daemon started.
    pub messages: u64,
    /// Number of messages that were given up because they cannot be read.
    pub unreadable: u64,
    /// Error of the last call, if it failed. The jobs that were known stay.
    pub error: Option<String>,
    /// True if a runner listens although the set tells of no job, because deliveries or readings tell of one.
    #[serde(default)]
    pub is_probed: bool,
    /// Labels of the set, if they are not those of the pool.
    pub other_labels: Option<Vec<String>>,
}
