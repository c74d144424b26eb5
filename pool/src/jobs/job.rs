//! One job of GitHub's queue, from events in any order.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

use crate::{PoolName, ScopeId};

/// Maximum age of a job that waits for a runner. GitHub cancels such a job after 24 hours ("Usage limits" of
/// self-hosted runners).
const QUEUED_AGE: Duration = Duration::from_hours(25);
/// Maximum age of a job that needs, or needed, an approval. GitHub ends a run after 35 days.
const HELD_AGE: Duration = Duration::from_hours(36 * 24);
/// Maximum run time. GitHub ends a job on a self-hosted runner after 5 days.
const RUNNING_AGE: Duration = Duration::from_hours(6 * 24);
/// Time for which an ended job is known, so that a late event does not bring it back. A job that was queued
/// earlier than that has left by [`QUEUED_AGE`].
const ENDED_AGE: Duration = QUEUED_AGE;

/// Time after which a job that waits for a runner is read from GitHub's API: a delivery of its start or end may be
/// lost, or was never sent.
const READ_QUEUED: Duration = Duration::from_mins(5);
/// The same for a job that needs an approval or runs, of which less depends.
const READ_OTHER: Duration = Duration::from_mins(30);
/// The same for a job that was told both as waiting for an approval and as waiting for a runner. Only GitHub knows
/// which of them is true now. Deliveries that were sent together arrive within this time.
const READ_UNCLEAR: Duration = Duration::from_secs(10);

/// Source of what is known of a job. Ids of two sources have nothing in common.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobSource {
    /// Deliveries of `workflow_job`, and the REST API, which has the same ids.
    Webhook,
    /// Messages of scale sets. The id is of one assignment to one set, because GitHub assigns a job anew that no runner
    /// took, after it has told the end of the assignment before.
    ScaleSet,
}

/// Identity of a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobKey {
    /// Scope in which it was seen.
    pub scope: ScopeId,
    /// Source that gave the id.
    pub source: JobSource,
    /// Id of the job at the source.
    pub id: u64,
}

/// Evidence that an event gives. The later one describes the job better.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, VariantArray,
)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// It waits for an approval.
    Held,
    /// It waits for a runner.
    Queued,
    /// A runner took it.
    Started,
    /// It is over.
    Ended,
}

/// Description of a job. Its text comes from the authors of workflows, so it is not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobDescription {
    /// `owner/repo`.
    pub repository: String,
    /// Id of its run.
    pub run_id: u64,
    /// Name of its workflow.
    pub workflow: String,
    /// Its name.
    pub name: String,
    /// Labels that it asks for.
    pub labels: Vec<String>,
}

/// Conclusion of a job, in GitHub's words.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conclusion {
    /// Every step was good.
    Success,
    /// A step failed.
    Failure,
    /// It was cancelled.
    Cancelled,
    /// Its condition was false.
    Skipped,
    /// It ran longer than its limit.
    TimedOut,
    /// Neither good nor bad.
    Neutral,
    /// Something is left for a person to do.
    ActionRequired,
    /// GitHub does not have the job any more, because its run was deleted. GitHub has no word for it.
    Deleted,
    /// A conclusion that this version does not know.
    Other,
}

/// End of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobEnd {
    /// Time, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Conclusion.
    pub conclusion: Conclusion,
}

/// Age of a reading after which the next equal one is news, too. It is below [`READ_QUEUED`], so that a job whose
/// reading was due is not due again at once.
const SAME_READING: Duration = Duration::from_mins(2);

/// State of a job in GitHub's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobReading {
    /// Time at which it was read, in milliseconds since 1970.
    pub unix_ms: u64,
    /// True if no runner may take the job now.
    pub is_held: bool,
}

/// Stage of a job.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobStage {
    /// It waits for an approval, and no runner may take it.
    Held,
    /// It waits for a runner.
    Queued,
    /// A runner has it.
    Running,
    /// It is over.
    Ended,
}

/// A job, as far as events tell.
///
/// Events arrive late, twice and in any order. Two states of one job merge to the same state in either order,
/// and merging one twice changes nothing, so the order of events does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownJob {
    /// Identity.
    pub key: JobKey,
    /// Attempt of its run. A later one replaces everything that is known of an earlier one.
    pub attempt: u32,
    /// Description, and the evidence that came with it.
    pub description: (Evidence, JobDescription),
    /// Runner that took it, and the evidence that named it.
    pub runner: Option<(Evidence, String)>,
    /// Earliest known time in the queue, in milliseconds since 1970.
    pub queued_unix_ms: u64,
    /// True if an event told that it waits for an approval.
    pub held: bool,
    /// True if an event told that it waits for a runner.
    pub queued: bool,
    /// Latest arrival of an event that told that it waits for anything, in milliseconds since 1970.
    #[serde(default)]
    pub told_unix_ms: u64,
    /// Latest reading of GitHub's API.
    #[serde(default)]
    pub read: Option<JobReading>,
    /// Start, in milliseconds since 1970.
    pub started_unix_ms: Option<u64>,
    /// End.
    pub end: Option<JobEnd>,
    /// Pool whose scale set GitHub assigned it to.
    #[serde(default)]
    pub pool: Option<PoolName>,
    /// Id of that scale set.
    #[serde(default)]
    pub set: Option<u64>,
}

impl KnownJob {
    /// Returns a first attempt as an event tells of it, with neither a runner nor a start nor an end.
    #[must_use]
    pub fn new(
        key: JobKey,
        evidence: Evidence,
        description: JobDescription,
        queued_unix_ms: u64,
    ) -> Self {
        Self {
            key,
            attempt: 1,
            description: (evidence, description),
            runner: None,
            queued_unix_ms,
            held: evidence == Evidence::Held,
            queued: evidence == Evidence::Queued,
            told_unix_ms: 0,
            read: None,
            started_unix_ms: None,
            end: None,
            pool: None,
            set: None,
        }
    }

    /// Returns its description.
    #[must_use]
    pub fn description(&self) -> &JobDescription {
        &self.description.1
    }

    /// Returns the name of the runner that took it.
    #[must_use]
    pub fn runner(&self) -> Option<&str> {
        self.runner.as_ref().map(|(_, runner)| runner.as_str())
    }

    /// Returns its stage.
    ///
    /// A job with an approval is told as held and, after the approval, as queued. Either may arrive first, so
    /// a job that was told as both counts as queued until GitHub's API tells which is true: a runner that waits for
    /// nothing costs less than a job that waits for ever.
    #[must_use]
    pub fn stage(&self) -> JobStage {
        if self.end.is_some() {
            JobStage::Ended
        } else if self.started_unix_ms.is_some() {
            JobStage::Running
        } else if self.is_held() {
            JobStage::Held
        } else {
            JobStage::Queued
        }
    }

    fn is_held(&self) -> bool {
        match self.current_reading() {
            Some(reading) => reading.is_held,
            None => self.held && !self.queued,
        }
    }

    /// Returns the latest reading, unless an event came after it.
    fn current_reading(&self) -> Option<JobReading> {
        self.read.filter(|read| read.unix_ms >= self.told_unix_ms)
    }

    /// Returns the time at which the job is to be read from GitHub's API, in milliseconds since 1970; `None` if it
    /// has ended, or if the API does not know its id.
    #[must_use]
    pub fn read_due_unix_ms(&self) -> Option<u64> {
        match self.key.source {
            JobSource::Webhook => {}
            JobSource::ScaleSet => return None,
        }
        let is_unclear = self.held && self.queued && self.current_reading().is_none();
        let interval = match self.stage() {
            JobStage::Ended => return None,
            JobStage::Queued if is_unclear => READ_UNCLEAR,
            JobStage::Queued => READ_QUEUED,
            JobStage::Held | JobStage::Running => READ_OTHER,
        };
        let read = self.read.map(|read| read.unix_ms);
        let known = [Some(self.told_unix_ms), self.started_unix_ms, read];
        let last = known.into_iter().flatten().max().unwrap_or_default();
        Some(last.saturating_add(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Returns true if another reading of the same job tells more than that nothing has changed since a moment ago.
    #[must_use]
    pub fn is_news(&self, other: &Self) -> bool {
        let merged = self.clone().merge(other.clone());
        let age = |job: &Self| job.read.map_or(0, |read| read.unix_ms);
        let is_older = u128::from(age(&merged).saturating_sub(age(self)));
        let is_same = Self {
            read: self.read,
            ..merged.clone()
        } == *self;
        !is_same || merged.stage() != self.stage() || is_older >= SAME_READING.as_millis()
    }

    /// Merges what another event told of the same job.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        if self.attempt != other.attempt {
            return if self.attempt > other.attempt {
                self
            } else {
                other
            };
        }
        let started = [self.started_unix_ms, other.started_unix_ms];
        Self {
            key: self.key,
            attempt: self.attempt,
            description: self.description.max(other.description),
            runner: self.runner.max(other.runner),
            queued_unix_ms: self.queued_unix_ms.min(other.queued_unix_ms),
            held: self.held || other.held,
            queued: self.queued || other.queued,
            told_unix_ms: self.told_unix_ms.max(other.told_unix_ms),
            read: self.read.max(other.read),
            started_unix_ms: started.into_iter().flatten().min(),
            end: self.end.max(other.end),
            pool: self.pool.max(other.pool),
            set: self.set.max(other.set),
        }
    }

    /// Returns the time after which the job is not in GitHub's queue any more, whatever events tell: GitHub's
    /// own limit of its stage, in milliseconds since 1970.
    #[must_use]
    pub fn leaves_unix_ms(&self) -> u64 {
        let (since, age) = match (self.end, self.started_unix_ms) {
            (Some(end), _) => (end.unix_ms, ENDED_AGE),
            (None, Some(started)) => (started, RUNNING_AGE),
            (None, None) if self.held => (self.queued_unix_ms, HELD_AGE),
            (None, None) => (self.queued_unix_ms, QUEUED_AGE),
        };
        since.saturating_add(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns the time from the queue to the start, in milliseconds. A job with an approval has none, because
    /// it did not wait for a runner all that time.
    #[must_use]
    pub fn wait_ms(&self) -> Option<u64> {
        let started = self.started_unix_ms.filter(|_| !self.held)?;
        Some(started.saturating_sub(self.queued_unix_ms))
    }
}
