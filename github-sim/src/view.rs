//! What the control API takes and shows. Times are unix milliseconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    scope::Scope,
    wire::{Facts, Misbehaviour, Step},
};

/// A job to queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Shown in the listener's log.
    pub name: String,
    /// Where it comes from; the first repository the server knows when absent.
    #[serde(default)]
    pub scope: Option<Scope>,
    /// A runner takes it when it has all of these.
    pub labels: Vec<String>,
    /// What to run, in order.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Variables for every step.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Keep it in the queue until it is released.
    #[serde(default)]
    pub hold: bool,
    /// So many times, the runner that tries to acquire it hears 409 and becomes a ghost.
    #[serde(default)]
    pub lose_races: u32,
    /// What the listener shall do wrong.
    #[serde(default)]
    pub listener: Misbehaviour,
}

impl JobSpec {
    /// A job of one step.
    #[must_use]
    pub fn new(name: &str, labels: &[&str], run: &str) -> Self {
        Self {
            name: name.into(),
            scope: None,
            labels: labels.iter().map(|&label| label.into()).collect(),
            steps: vec![Step {
                name: "run".into(),
                run: run.into(),
            }],
            env: BTreeMap::new(),
            hold: false,
            lose_races: 0,
            listener: Misbehaviour::default(),
        }
    }
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Waits for a runner.
    Queued,
    /// Offered to a runner that has not acquired it.
    Assigned,
    /// Acquired.
    InProgress,
    /// Over.
    Completed,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// The listener said so.
    Success,
    /// The listener said so, or its lock lapsed ("lost communication").
    Failure,
    /// Cancelled before or while it ran.
    Cancelled,
}

/// One try to give a job to a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The runner's id.
    pub runner_id: u64,
    /// The runner's name.
    pub runner_name: String,
    /// When it was offered.
    pub assigned_at: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not known yet.
    Offered,
    /// The runner acquired the job.
    Acquired,
    /// The runner did not acquire it in time.
    NotAcquired,
    /// The runner asked and was refused.
    LostRace,
    /// The runner was deleted before it asked.
    RunnerGone,
    /// The job was cancelled before the runner asked.
    Cancelled,
}

/// A job as the control API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobView {
    /// Its id; also `GITHUB_RUN_ID`.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub scope: Scope,
    /// What it asks for.
    pub labels: Vec<String>,
    /// Where it is.
    pub status: JobStatus,
    /// How it ended.
    pub conclusion: Option<Conclusion>,
    /// Why, when the listener did not say.
    pub reason: Option<String>,
    /// The runner that has it, or had it last.
    pub runner_id: Option<u64>,
    /// That runner's name.
    pub runner_name: Option<String>,
    /// When it was queued.
    pub created_at: u64,
    /// When it was acquired.
    pub started_at: Option<u64>,
    /// When it was over.
    pub completed_at: Option<u64>,
    /// How many assignments there were.
    pub attempts: usize,
    /// All of them.
    pub assignments: Vec<Assignment>,
    /// Whether it waits to be released.
    pub held: bool,
    /// What the listener told about the machine, and the end of the log.
    pub facts: Facts,
    /// What the job said of itself, oldest first.
    pub witness: Vec<String>,
}

/// A registration to plant, as if another program had made it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlantedRunner {
    /// Where it is registered.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// `online` or `offline`.
    #[serde(default = "offline")]
    pub status: String,
    /// Whether it runs a job (and cannot be deleted).
    #[serde(default)]
    pub busy: bool,
    /// Its labels.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Its group.
    #[serde(default = "default_group")]
    pub runner_group_id: u64,
}

fn offline() -> String {
    "offline".into()
}

fn default_group() -> u64 {
    1
}

/// Why a runner is no longer registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoneCause {
    /// It ran its one job.
    JobDone,
    /// `DELETE` by REST.
    DeletedByRest,
    /// Deleted in the user interface.
    DeletedInUi,
    /// It listened too long without a job.
    IdleReaped,
    /// It was offline too long.
    OfflineExpired,
    /// Its config was not used in time.
    ConfigExpired,
    /// It lost communication while running its job.
    LostCommunication,
}

/// What a runner is to the REST API and to its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// REST calls see it, list lag aside.
    Registered,
    /// Lost the race for its job: REST calls see it no more, its listener listens on.
    Ghost,
    /// Registered no more; its listener hears `RunnerNotFound`.
    Gone,
}

/// A runner as the control API shows it, ghosts and gone ones included.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunnerView {
    /// Its id, above 2³².
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where it is registered.
    pub scope: Scope,
    /// Its group.
    pub runner_group_id: u64,
    /// Its labels.
    pub labels: Vec<String>,
    /// Whether it polls.
    pub online: bool,
    /// Whether REST calls say that it runs a job.
    pub busy: bool,
    /// The job it was offered or runs.
    pub job: Option<u64>,
    /// Whether REST calls can see it.
    pub standing: Standing,
    /// Why it is gone.
    pub gone: Option<GoneCause>,
    /// When it went.
    pub gone_at: Option<u64>,
    /// Whether it was planted.
    pub planted: bool,
    /// Version of its listener, once it has connected.
    pub version: Option<String>,
    /// `HOST (PID: n)` of its open session.
    pub session_owner: Option<String>,
    /// Polls in flight.
    pub polls: u32,
    /// When it was minted or planted.
    pub created_at: u64,
}
