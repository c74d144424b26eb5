//! What is seen of the outside, as plain data: units, life records, jobs, registrations.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::names::SlotId;
use super::time::Timestamp;

/// systemd's 128-bit name of one start of a unit, 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Invocation(String);

impl Invocation {
    /// Reads systemd's spelling; `None` for anything else (an empty id means "never started").
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let good = text.len() == 32
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        good.then(|| Self(text.to_owned()))
    }

    /// The id as text.
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
    /// Not loaded, never started, or ended well.
    Inactive,
    /// Being started: the container boots.
    Activating,
    /// Booted and its network set.
    Active,
    /// Being stopped.
    Deactivating,
    /// Ended badly; stays loaded until reset or started again.
    Failed,
}

/// What the launcher wrote when it started a life (`lives/<slot>/<invocation>.start.json`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRecord {
    /// The start it belongs to.
    pub invocation: Invocation,
    /// Which image, layer and limits it was started with; see `Pool::generation` in `config`.
    pub generation: String,
    /// When the launcher ran.
    pub at: Timestamp,
}

/// What root wrote when a life ended (`lives/<slot>/<invocation>.end.json`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndRecord {
    /// The start it belongs to.
    pub invocation: Invocation,
    /// systemd's `$SERVICE_RESULT`: `success`, `exit-code`, `signal`, `timeout`, `oom-kill`, …
    pub service_result: String,
    /// How the main process, and with it the container, ended.
    pub exit: Exit,
    /// Highest memory use in bytes, if the kernel counted it.
    pub memory_peak_bytes: Option<u64>,
    /// Processes the kernel killed for want of memory.
    pub oom_kills: u64,
    /// When the record was written.
    pub at: Timestamp,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status. The container's is its runner's.
    Status(i32),
    /// A signal ended it (`KILL`, `SEGV`, …).
    Signal(String),
    /// It never ran, or nobody saw how it ended.
    Unknown,
}

/// One slot's unit as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitObservation {
    /// The slot.
    pub slot: SlotId,
    /// Its state.
    pub state: UnitState,
    /// The start this state belongs to; `None` when the unit is not loaded.
    pub invocation: Option<Invocation>,
    /// The newest start record of the slot (of `invocation`, if that is known).
    pub start: Option<StartRecord>,
    /// The newest end record of the slot (of `invocation`, if that is known and it has ended).
    pub end: Option<EndRecord>,
}

/// What a job-started hook said. Shown, never acted on beyond "a job has started here".
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

/// A runner's id at GitHub. May exceed 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunnerId(pub u64);

impl fmt::Display for RunnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A runner as GitHub's list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRunner {
    /// GitHub's id.
    pub id: RunnerId,
    /// Its name, ours or anybody's.
    pub name: String,
    /// `status` is `online`.
    pub online: bool,
    /// It runs a job.
    pub busy: bool,
}

/// What a DELETE settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// 204, or 404: there is no such runner any more.
    Gone,
    /// 422: it is running a job, so it is busy whatever it looked like.
    Busy,
}
