//! Observations of systemd, of root's records, of jobs and of GitHub, as plain data.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::names::SlotId;
use super::time::Timestamp;
use super::version::RunnerVersion;

/// systemd's 128-bit id of one start of a unit, 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Invocation(String);

impl Invocation {
    /// Parses systemd's spelling. An empty id, which means "never started", is `None` like any other
    /// text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = text.len() == 32
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        is_valid.then(|| Self(text.to_owned()))
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Invocation> for String {
    fn from(invocation: Invocation) -> Self {
        invocation.0
    }
}

impl TryFrom<String> for Invocation {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("an invocation is 32 lower-case hexadecimal digits")
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A unit's `ActiveState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnitState {
    /// Not loaded, never started, or ended successfully.
    Inactive,
    /// Starting: the container boots.
    Activating,
    /// Booted, with a network.
    Active,
    /// Stopping.
    Deactivating,
    /// Ended with a failure. The unit stays loaded until it is reset or started again.
    Failed,
}

/// Root's record of a start (`lives/<slot>/<invocation>.start.json`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRecord {
    /// The start.
    pub invocation: Invocation,
    /// Identity of its image, layer and limits; see `Pool::generation` in `config`.
    pub generation: String,
    /// True if its listener is told to return the job's result; see [`EndRecord::returns_result`].
    pub returns_result: bool,
    /// Time at which the launcher ran.
    pub at: Timestamp,
}

/// Root's record of an end (`lives/<slot>/<invocation>.end.json`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndRecord {
    /// The start that ended.
    pub invocation: Invocation,
    /// systemd's `$SERVICE_RESULT`: `success`, `exit-code`, `signal`, `timeout`, `oom-kill`, …
    pub service_result: String,
    /// Exit of the main process, which is the container's.
    pub exit: Exit,
    /// Highest memory use in bytes, if the kernel counted it.
    pub memory_peak_bytes: Option<u64>,
    /// Number of processes that the kernel killed because memory ran out.
    pub oom_kills: u64,
    /// Processor time of the unit in milliseconds, if the kernel counted it.
    pub cpu_ms: Option<u64>,
    /// Disk and network that it used.
    pub usage: ResourceUse,
    /// Time at which the listener first wrote that it listens for jobs. A container says so, and decides nothing by it.
    pub listening_at: Option<Timestamp>,
    /// True if systemd was asked to stop the unit, by any program.
    pub stop_requested: bool,
    /// True if the listener was told to return its job's result as its exit status. Earlier versions did
    /// not tell it, and their containers may outlive an upgrade.
    pub returns_result: bool,
    /// The last line that the runner wrote to its console, escaped and bounded. Not to be trusted.
    pub last_line: Option<String>,
    /// Time at which the record was written.
    pub at: Timestamp,
}

/// Disk and network that a runner used. The host reads them every few seconds while it runs, so the last seconds may be
/// missing. `None` if no reading succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceUse {
    /// Highest use of its layer in bytes.
    #[serde(default)]
    pub layer_peak_bytes: Option<u64>,
    /// Bytes that its container received over its link.
    #[serde(default)]
    pub received_bytes: Option<u64>,
    /// Bytes that its container sent over its link.
    #[serde(default)]
    pub sent_bytes: Option<u64>,
}

impl EndRecord {
    /// Returns true if the last line of the runner is that of a listener that waits for a job.
    #[must_use]
    pub fn says_that_it_listens(&self) -> bool {
        let line = self.last_line.as_deref().unwrap_or_default();
        line.ends_with("Listening for Jobs")
    }
}

/// Root's records of one runner that ended in this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEnd {
    /// The slot.
    pub slot: SlotId,
    /// Record of its start, if root could write it.
    pub start: Option<StartRecord>,
    /// Record of its end.
    pub end: EndRecord,
}

/// Exit of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Exit with this status. The container's status is its runner's.
    Status(i32),
    /// Death by a signal (`KILL`, `SEGV`, …).
    Signal(String),
    /// The process never ran, or its exit is not known.
    Unknown,
}

/// State of one slot's unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitObservation {
    /// The slot.
    pub slot: SlotId,
    /// State of the unit.
    pub state: UnitState,
    /// The start that the state belongs to; `None` if the unit is not loaded.
    pub invocation: Option<Invocation>,
    /// Start record of `invocation`, or the newest one of the slot if that is not known.
    pub start: Option<StartRecord>,
    /// End record of `invocation` if it has ended, or the newest one of the slot if that is not known.
    pub end: Option<EndRecord>,
}

impl UnitObservation {
    /// Returns true if the unit has a container, or is about to have one.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self.state {
            UnitState::Activating | UnitState::Active | UnitState::Deactivating => true,
            UnitState::Inactive | UnitState::Failed => false,
        }
    }
}

/// A job's description of itself, from the job-started hook.
///
/// It is only shown. No decision depends on more than "a job has started here".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobNote {
    /// `GITHUB_REPOSITORY`, at most 140 printable ASCII characters.
    pub repository: String,
    /// `GITHUB_RUN_ID`, digits.
    pub run_id: String,
    /// `GITHUB_JOB`, at most 100 printable ASCII characters.
    pub job: String,
    /// `GITHUB_WORKFLOW`, at most 100 printable ASCII characters.
    pub workflow: String,
}

impl JobNote {
    /// Returns the address of the job's run on `server`, which has no slash at its end, if the job told
    /// its repository and run.
    #[must_use]
    pub fn run_url(&self, server: &str) -> Option<String> {
        let (repository, run_id) = (&self.repository, &self.run_id);
        let is_known = !repository.is_empty() && !run_id.is_empty();
        is_known.then(|| format!("{server}/{repository}/actions/runs/{run_id}"))
    }
}

/// GitHub's id of a runner. It may exceed 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunnerId(pub u64);

impl fmt::Display for RunnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Entry of GitHub's list of runners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRunner {
    /// GitHub's id.
    pub id: RunnerId,
    /// Name of the runner, which may be another host's.
    pub name: String,
    /// True if `status` is `online`.
    pub online: bool,
    /// True if it runs a job.
    pub busy: bool,
    /// Version that its listener told, once it has connected.
    pub version: Option<RunnerVersion>,
}

/// Result of a deletion at GitHub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// 204 or 404: the registration does not exist any more.
    Gone,
    /// 422: the runner has a job.
    Busy,
}
