//! Values that the control API takes and shows. Times are unix milliseconds.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    scope::Scope,
    wire::{Facts, JobStep, ListenerFaults},
};

/// A job to queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Name in the listener's log.
    pub name: String,
    /// Repository or organisation of the job; the server's first repository when absent.
    #[serde(default)]
    pub scope: Option<Scope>,
    /// Labels that a runner must have, all of them.
    pub labels: Vec<String>,
    /// Steps in their order.
    #[serde(default)]
    pub steps: Vec<JobStep>,
    /// Variables for every step.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Container in which the steps run. A stand-in listener fails such a job.
    #[serde(default)]
    pub container: Option<JobContainer>,
    /// Containers beside the job, by name. A stand-in listener fails such a job.
    #[serde(default)]
    pub services: BTreeMap<String, JobContainer>,
    /// Keeps the job in the queue until it is released.
    #[serde(default)]
    pub hold: bool,
    /// Number of runners that are refused with 409 when they try to acquire the job. They become ghosts.
    #[serde(default)]
    pub lose_races: u32,
    /// Faults of the listener that runs the job.
    #[serde(default)]
    pub listener_faults: ListenerFaults,
    /// Marks a job of a public repository. A runner group may forbid these.
    #[serde(default)]
    pub public: bool,
    /// Hides the job from scale sets until one of their runners is idle. GitHub does so with the repeated
    /// jobs of a completed run (pytorch/ci-infra#900).
    #[serde(default)]
    pub hidden_rerun: bool,
    /// Keeps the job until it is released, as an environment with required reviewers does. Its first webhook
    /// deliveries are `queued` and `waiting`, both with the status `waiting`.
    #[serde(default)]
    pub needs_approval: bool,
}

impl JobSpec {
    /// Returns a job of one step.
    #[must_use]
    pub fn new(name: &str, labels: &[&str], run: &str) -> Self {
        Self {
            name: name.into(),
            scope: None,
            labels: labels.iter().map(|&label| label.into()).collect(),
            steps: vec![JobStep {
                name: "run".into(),
                run: run.into(),
            }],
            env: BTreeMap::new(),
            container: None,
            services: BTreeMap::new(),
            hold: false,
            lose_races: 0,
            listener_faults: ListenerFaults::default(),
            public: false,
            hidden_rerun: false,
            needs_approval: false,
        }
    }
}

/// A container of a job, as `container:` and `services:` of a workflow have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobContainer {
    /// Image reference.
    pub image: String,
    /// Variables of the container.
    pub env: BTreeMap<String, String>,
    /// Ports, as `docker create --publish` takes them.
    pub ports: Vec<String>,
    /// Volumes, as `docker create --volume` takes them.
    pub volumes: Vec<String>,
    /// Further options of `docker create`.
    pub options: Option<String>,
}

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// The job waits for a runner.
    Queued,
    /// The job is offered to a runner that has not acquired it.
    Assigned,
    /// A runner has acquired the job.
    InProgress,
    /// The job has ended.
    Completed,
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        })
    }
}

/// Conclusion of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// Reported by the listener.
    Success,
    /// Reported by the listener, or the job's lock lapsed ("lost communication").
    Failure,
    /// The job was cancelled before or while it ran.
    Cancelled,
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
        })
    }
}

/// One offer of a job to a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The runner's id.
    pub runner_id: u64,
    /// The runner's name.
    pub runner_name: String,
    /// Time of the offer.
    pub assigned_at: u64,
    /// Result of the offer.
    pub outcome: Outcome,
}

/// Result of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The runner has not answered yet.
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
    /// Id, which is also `GITHUB_RUN_ID`.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Repository or organisation of the job.
    pub scope: Scope,
    /// Labels that a runner must have.
    pub labels: Vec<String>,
    /// State.
    pub status: JobState,
    /// Conclusion, once the job has ended.
    pub conclusion: Option<Conclusion>,
    /// Reason of a conclusion that the listener did not report.
    pub reason: Option<String>,
    /// Id of the runner that has the job, or had it last.
    pub runner_id: Option<u64>,
    /// Name of that runner.
    pub runner_name: Option<String>,
    /// Time at which the job was queued.
    pub created_at: u64,
    /// Time at which a runner acquired the job.
    pub started_at: Option<u64>,
    /// Time at which the job ended.
    pub completed_at: Option<u64>,
    /// Number of assignments.
    pub attempts: usize,
    /// Assignments, oldest first.
    pub assignments: Vec<Assignment>,
    /// True while the job waits for its release.
    pub held: bool,
    /// Report of the listener about the machine, and the end of the log.
    pub facts: Facts,
    /// Lines that the job wrote about itself, oldest first.
    pub witness: Vec<String>,
}

impl JobView {
    /// Returns name, state, conclusion and runner in one line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let end = self.conclusion.map(|conclusion| conclusion.to_string());
        format!(
            "{} {} {} on {}",
            self.name,
            self.status,
            end.as_deref().or(self.reason.as_deref()).unwrap_or("-"),
            self.runner_name.as_deref().unwrap_or("-")
        )
    }
}

/// A registration that a test makes, as another program would.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlantedRunner {
    /// Scope of the registration.
    pub scope: Scope,
    /// Name.
    pub name: String,
    /// `online` or `offline`.
    #[serde(default = "offline")]
    pub status: String,
    /// True for a runner with a job, which cannot be deleted.
    #[serde(default)]
    pub busy: bool,
    /// Labels.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Runner group.
    #[serde(default = "default_group")]
    pub runner_group_id: u64,
}

/// Token of one scope, for [`crate::Control::set_scope_tokens`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeToken {
    /// The scope in which the token has all permissions.
    pub scope: Scope,
    /// The token.
    pub token: String,
}

fn offline() -> String {
    "offline".into()
}

fn default_group() -> u64 {
    1
}

/// Cause of the end of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoneCause {
    /// The runner ran its one job.
    JobDone,
    /// The REST API was called.
    DeletedByRest,
    /// An operator deleted the runner in the browser.
    DeletedInUi,
    /// The runner listened too long without a job.
    IdleReaped,
    /// The runner was offline too long.
    OfflineExpired,
    /// The JIT config was not used in time.
    ConfigExpired,
    /// The runner lost communication while it ran its job.
    LostCommunication,
}

/// Standing of a runner at the REST API and for its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The REST API shows the runner (a list may lag).
    Registered,
    /// The runner lost the race for a job. The REST API does not show it; its listener listens on.
    Ghost,
    /// The registration has ended. The listener is answered `RunnerNotFound`.
    Gone,
}

/// A runner as the control API shows it, also if it is a ghost or gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunnerView {
    /// Id, above 2³².
    pub id: u64,
    /// Name.
    pub name: String,
    /// Scope of the registration.
    pub scope: Scope,
    /// Runner group.
    pub runner_group_id: u64,
    /// Labels.
    pub labels: Vec<String>,
    /// True while the listener polls.
    pub online: bool,
    /// True while the REST API says that the runner has a job.
    pub busy: bool,
    /// Id of the job that the runner was offered or runs.
    pub job: Option<u64>,
    /// Standing.
    pub standing: Standing,
    /// Cause of the end of the registration.
    pub gone: Option<GoneCause>,
    /// Time of the end of the registration.
    pub gone_at: Option<u64>,
    /// True if a test made the registration.
    pub planted: bool,
    /// Version of the listener, once it has connected.
    pub version: Option<String>,
    /// `HOST (PID: n)` of the open session.
    pub session_owner: Option<String>,
    /// Number of polls in flight.
    pub polls: u32,
    /// Time of the mint, or of the test's request.
    pub created_at: u64,
}

/// A scale set as the control API shows it, also if it was deleted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScaleSetView {
    /// Id.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Scope of the set.
    pub scope: Scope,
    /// Runner group.
    pub runner_group_id: u64,
    /// Labels.
    pub labels: Vec<String>,
    /// True after a deletion, and after a loss at GitHub.
    pub deleted: bool,
    /// Owner of the session.
    pub session_owner: Option<String>,
    /// Number of polls in flight.
    pub polls: u32,
    /// Capacity of the session's last poll.
    pub capacity: u64,
    /// Ids of the jobs that the set holds.
    pub jobs: Vec<u64>,
    /// Ids of the messages that were not deleted.
    pub messages: Vec<u64>,
}
