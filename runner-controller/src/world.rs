//! The outside world as the controller sees it: traits to call, and events that arrive.
//!
//! A trait has the verbs that its caller needs, and documents what a retry means. An [`Event`] carries
//! the state of one thing as it is now, and never a difference. So a signal, a slow full reconcile and
//! an observation after a restart are the same message.

mod hook;
mod scale_set;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::pool::{
    KnownJob, RunnerGroup, RunnerName, RunnerVersion, ScopeId, Shortages, SlotId, VersionEnd,
};
use crate::status::{QueueStatus, RedeliveryStatus, ScaleSetStatus, TracesStatus, WebhookStatus};

pub use hook::{
    Deliveries, FailedAttempt, Hook, HookOwner, KnownHooks, MAX_DELIVERY_ID, MAX_HOOKS,
};
pub use scale_set::{FoundSet, OpenSession, ScaleSets, SetError, SetMessage, WantedSet};

pub use crate::pool::{
    Deleted, EndRecord, Exit, Invocation, JobNote, ListedRunner, MintWindow, RecordedEnd,
    ResourceUse, RunnerId, RunnerRecord, StartRecord, StrayRecord, UnitObservation, UnitState,
    VerdictRecord,
};

/// Error that tells whether the same call may succeed later.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// Returns true if the same call may succeed later without an operator.
    fn is_transient(&self) -> bool;
}

/// Event that arrives without a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A unit changed, or was observed.
    Unit(UnitObservation),
    /// The slot's container is connected, as its root, and waits for its JIT config.
    ConfigRequested {
        /// The slot.
        slot: SlotId,
    },
    /// The slot's container has not got a JIT config. Sent once, to a new daemon, unless the container
    /// waits.
    ConfigNotGiven {
        /// The slot.
        slot: SlotId,
    },
    /// The connection that waited for a JIT config closed without one.
    RequestDropped {
        /// The slot.
        slot: SlotId,
    },
    /// The slot's job reports that it started. The text is not to be trusted; it is bounded and escaped.
    JobStarted {
        /// The slot.
        slot: SlotId,
        /// The job's description of itself.
        note: JobNote,
    },
    /// A reading of the slots whose links exist and have no address.
    LinksWithoutAddress(BTreeSet<SlotId>),
    /// All resources that the host runs short of.
    Shortages(Shortages),
    /// Root checked the firewall, or has not checked it for too long.
    Firewall {
        /// Reason for which no runner may start or register.
        problem: Option<String>,
    },
    /// A job of GitHub's queue, as it is on record.
    Job(Box<KnownJob>),
    /// Number of GitHub's deliveries so far.
    Deliveries(WebhookStatus),
    /// Readings of GitHub's API in one scope so far.
    Queue(QueueStatus),
    /// State of the scale set of one pool.
    ScaleSet(ScaleSetStatus),
    /// Deliveries of one hook that GitHub was asked for once more.
    Redelivery(RedeliveryStatus),
}

/// Returns an error and all its causes on one line, for the journal.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// Units of the slots. No call waits for a unit to change, because the change arrives as an [`Event`].
pub trait Machines: Send + Sync + 'static {
    /// Error of a call.
    type Error: Failure;

    /// Asks systemd to start the slot's unit. A unit that is starting or active counts as started. A
    /// failed unit needs no reset.
    fn start(&self, slot: &SlotId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Asks systemd to stop the slot's unit in order: the runner gets SIGINT, ends its job and reports it to
    /// GitHub as failed. A unit that is gone counts as stopped, so a retry is safe.
    fn stop(&self, slot: &SlotId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Kills the slot's container (SIGKILL). Only for a runner without a job. A unit that is gone counts
    /// as killed, so a retry is safe.
    fn kill(&self, slot: &SlotId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Observes every slot's unit that systemd has loaded, also of pools that are not configured any
    /// more, and every configured slot. A slot without a unit is inactive, and comes with root's newest
    /// records of it.
    fn observe(&self) -> impl Future<Output = Result<Vec<UnitObservation>, Self::Error>> + Send;

    /// Returns every end of this boot that root has on record, also of pools that are not configured any
    /// more. A record that cannot be read is left out, with a warning in the journal.
    fn ends(&self) -> impl Future<Output = Vec<RecordedEnd>> + Send;
}

/// An encoded JIT config. It is a bearer secret until its runner is gone, and is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct JitConfig(String);

impl JitConfig {
    /// Wraps GitHub's `encoded_jit_config`.
    #[must_use]
    pub fn new(encoded: String) -> Self {
        Self(encoded)
    }

    /// Returns the secret, for its delivery to the container.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JitConfig({} bytes)", self.0.len())
    }
}

/// Request for a new registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintRequest {
    /// Name that no request had before.
    pub name: RunnerName,
    /// Labels of the pool.
    pub labels: Vec<String>,
    /// Name of the runner group.
    pub runner_group: String,
    /// Directory for check-outs, absolute in the container.
    pub work_folder: String,
    /// Name of the scale set that the runner belongs to, if the pool has one.
    pub scale_set: Option<String>,
}

/// Result of a mint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minted {
    /// GitHub's id of the runner.
    pub id: RunnerId,
    /// Config with which the container becomes that runner.
    pub config: JitConfig,
}

/// Kind of a failed call to GitHub. Each kind needs another reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegistryErrorKind {
    /// 401: the token is wrong, expired or revoked.
    Unauthorized,
    /// 403 without a rate limit: a permission or a policy.
    Forbidden,
    /// 404: the repository, organisation or group does not exist, or the token has no access to it.
    NotFound,
    /// 409: the name is taken.
    NameTaken,
    /// 422 and other refusals of the request.
    Invalid,
    /// A primary or secondary rate limit. No call is sent before `retry_after` has passed.
    Limited,
    /// 5xx, or an answer that is not as documented: a failure at GitHub.
    Server,
    /// No whole answer: DNS, connection, TLS or timeout. A mint may have succeeded.
    Unreachable,
}

/// A failed call to GitHub, translated for the reader of the journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {message}{}{}", advice.as_ref().map(|a| format!(" ({a})")).unwrap_or_default(), request_id.as_ref().map(|r| format!(" [GitHub request {r}]")).unwrap_or_default())]
pub struct RegistryError {
    /// Name of the call: `generate-jitconfig`, `list runners`, `get runner`, `delete runner`, `list runner groups`,
    /// `check runner groups`, `get runner version`, `get job`, `list runs`, `list jobs`, `find scale set` and others of scale sets.
    pub operation: &'static str,
    /// Kind of failure.
    pub kind: RegistryErrorKind,
    /// The HTTP status, if an answer came.
    pub status: Option<u16>,
    /// Message of GitHub or of the network, bounded, without secrets and control characters.
    pub message: String,
    /// Advice for the operator, if there is any.
    pub advice: Option<String>,
    /// GitHub's `X-GitHub-Request-Id`.
    pub request_id: Option<String>,
    /// Delay that GitHub requested.
    pub retry_after: Option<Duration>,
}

/// Pause after a call that GitHub refused, until an operator changed something.
const REFUSED_PAUSE: Duration = Duration::from_hours(1);

impl RegistryError {
    /// Returns the pause before the call is made again, where nothing is urgent. `passing` is the one after a failure
    /// that passes by itself.
    #[must_use]
    pub fn pause(&self, passing: Duration) -> Duration {
        let pause = if self.is_transient() {
            passing
        } else {
            REFUSED_PAUSE
        };
        self.retry_after.unwrap_or_default().max(pause)
    }
}

impl Failure for RegistryError {
    fn is_transient(&self) -> bool {
        match self.kind {
            RegistryErrorKind::Limited
            | RegistryErrorKind::Server
            | RegistryErrorKind::Unreachable
            | RegistryErrorKind::NameTaken => true,
            RegistryErrorKind::Unauthorized
            | RegistryErrorKind::Forbidden
            | RegistryErrorKind::NotFound
            | RegistryErrorKind::Invalid => false,
        }
    }
}

impl RegistryError {
    /// Returns true if GitHub may have carried out the request although no good answer came.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        match self.kind {
            RegistryErrorKind::Server | RegistryErrorKind::Unreachable => true,
            RegistryErrorKind::Unauthorized
            | RegistryErrorKind::Forbidden
            | RegistryErrorKind::NotFound
            | RegistryErrorKind::NameTaken
            | RegistryErrorKind::Invalid
            | RegistryErrorKind::Limited => false,
        }
    }
}

/// Runners that GitHub knows.
pub trait Registry: Send + Sync + 'static {
    /// Registers a runner and returns its JIT config.
    ///
    /// Neither the daemon nor an HTTP client may retry it under the same name; see [`RunnerName`].
    fn mint(
        &self,
        request: &MintRequest,
    ) -> impl Future<Output = Result<Minted, RegistryError>> + Send;

    /// Returns every runner of the scope, from all pages. The request is conditional and costs nothing if
    /// nothing changed.
    ///
    /// The list is eventually consistent: a runner may be missing for seconds after its mint.
    fn list(&self) -> impl Future<Output = Result<Vec<ListedRunner>, RegistryError>> + Send;

    /// Returns one runner of the scope; `None` if GitHub does not have it. A retry is safe.
    fn find(
        &self,
        id: RunnerId,
    ) -> impl Future<Output = Result<Option<ListedRunner>, RegistryError>> + Send;

    /// Returns every runner group of an organisation or enterprise. A retry is safe. Nothing depends on it.
    fn groups(&self) -> impl Future<Output = Result<Vec<RunnerGroup>, RegistryError>> + Send;

    /// Returns the dates from which GitHub refuses a version of its runner; `None` if it does not know the version, or
    /// is a server that tells no dates. A retry is safe. Nothing depends on it.
    fn version_end(
        &self,
        version: RunnerVersion,
    ) -> impl Future<Output = Result<Option<VersionEnd>, RegistryError>> + Send;

    /// Sends no call for this long, because a rate limit that an earlier daemon got still lasts.
    fn hold(&self, wait: Duration);

    /// Returns the time for which no call is sent because of a rate limit, whichever call met it; `None` without one.
    fn held(&self) -> Option<Duration>;

    /// Returns true if calls of `other` count for the same rate limits.
    fn shares_limits(&self, other: &Self) -> bool;

    /// Returns the counted window of mints as GitHub last announced it, until its reset.
    fn mint_window(&self) -> Option<MintWindow>;

    /// Deletes a registration. A retry is safe.
    fn delete(&self, id: RunnerId) -> impl Future<Output = Result<Deleted, RegistryError>> + Send;
}

/// A job as GitHub's API tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadJob {
    /// GitHub has it.
    Known(Box<KnownJob>),
    /// GitHub does not have it, because its run was deleted.
    Gone,
    /// GitHub has it, and its description breaks a bound.
    Unreadable,
}

/// The jobs of a repository that wait or run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueReading {
    /// The jobs of the runs that were read, ended ones included.
    pub jobs: Vec<KnownJob>,
    /// Number of runs that were read.
    pub runs: usize,
    /// True if there are older runs, whose jobs were not read.
    pub has_more_runs: bool,
}

/// Jobs at GitHub, which the API tells without deliveries.
pub trait Queue: Send + Sync + 'static {
    /// Returns `owner/repo` if the scope is a repository, whose queue can be read at a bounded cost.
    fn repository(&self) -> Option<&str>;

    /// Reads one job. `unix_ms` is the time of the call. A retry is safe.
    fn job(
        &self,
        repository: &str,
        id: u64,
        unix_ms: u64,
    ) -> impl Future<Output = Result<ReadJob, RegistryError>> + Send;

    /// Reads the jobs of the repository that wait or run, of its newest runs; none if the scope is not a repository.
    /// `unix_ms` is the time of the call. A part of the queue is never returned as the whole. A retry is safe.
    fn jobs(
        &self,
        unix_ms: u64,
    ) -> impl Future<Output = Result<QueueReading, RegistryError>> + Send;
}

/// Sockets of the slots.
pub trait Handshake: Send + Sync + 'static {
    /// Error of a call.
    type Error: Failure;

    /// Prepares a slot for a new runner: its sockets listen, and nothing of the last runner is left.
    /// Called before the slot's unit is started, and never while it is alive.
    fn prepare(&self, slot: &SlotId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Writes the JIT config to the waiting connection and closes it. At most once for each runner: a
    /// second call, or a call without a waiting connection, fails and sends nothing.
    fn answer(
        &self,
        slot: &SlotId,
        config: JitConfig,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Result of a delivery that is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// False if the same delivery was on record already.
    pub is_new: bool,
    /// The job as it is on record now; `None` if the delivery was on record and the job is not any more.
    pub job: Option<KnownJob>,
}

/// Record of GitHub's deliveries and of the jobs that they tell of.
pub trait Inbox: Clone + Send + Sync + 'static {
    /// Error of a call.
    type Error: Failure;

    /// Merges what a delivery told of a job with what is on record, and keeps the delivery's id, both or neither.
    /// A delivery whose id is on record changes nothing, so a retry is safe. `unix_ms` is the time, which decides
    /// what has become too old to keep.
    fn deliver(
        &self,
        delivery: String,
        job: KnownJob,
        unix_ms: u64,
    ) -> impl Future<Output = Result<Delivered, Self::Error>> + Send;

    /// Returns those of the deliveries whose ids are on record.
    fn on_record(
        &self,
        deliveries: BTreeSet<String>,
    ) -> impl Future<Output = Result<BTreeSet<String>, Self::Error>> + Send;
}

/// Record of jobs, for those who read them from GitHub's API.
pub trait JobRecords: Send + Sync + 'static {
    /// Error of a call.
    type Error: Failure;

    /// Returns every job of a scope on record that has not ended.
    fn live_jobs(
        &self,
        scope: &ScopeId,
    ) -> impl Future<Output = Result<Vec<KnownJob>, Self::Error>> + Send;

    /// Merges what GitHub's API told of a job with what is on record. Returns the job if that is news. A retry is
    /// safe.
    fn merge(
        &self,
        job: KnownJob,
    ) -> impl Future<Output = Result<Option<KnownJob>, Self::Error>> + Send;
}

/// Records that outlive the daemon: runners, verdicts and settings. They contain no secret.
///
/// Calls take effect in the order in which they were first polled. A call that failed changed nothing
/// and may be retried. A cancelled call takes effect in full or not at all.
pub trait Records: Send + Sync + 'static {
    /// Error of a call.
    type Error: Failure;

    /// Returns the record of every runner, by slot. A record that cannot be read is left out, with a
    /// warning in the journal.
    fn load(&self) -> impl Future<Output = Result<Vec<RunnerRecord>, Self::Error>> + Send;

    /// Writes a runner's record in place of the one that its slot has.
    fn put(&self, runner: RunnerRecord) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes the record of a slot. A slot without a record counts as done.
    fn remove(&self, slot: SlotId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes the record of a slot and keeps a verdict, both or neither. A second verdict on the same
    /// invocation is not kept, so a retry is safe.
    fn close(&self, verdict: VerdictRecord)
    -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Returns the records of orphaned registrations. A record that cannot be read is left out, with a
    /// warning in the journal.
    fn strays(&self) -> impl Future<Output = Result<Vec<StrayRecord>, Self::Error>> + Send;

    /// Writes the record of an orphaned registration in place of the one that it has.
    fn put_stray(&self, stray: StrayRecord)
    -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes the record of an orphaned registration. One without a record counts as done.
    fn remove_stray(
        &self,
        scope: ScopeId,
        id: RunnerId,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Returns the last `count` verdicts, newest first.
    fn recent(
        &self,
        count: usize,
    ) -> impl Future<Output = Result<Vec<VerdictRecord>, Self::Error>> + Send;

    /// Returns those of the starts that have a verdict.
    fn judged(
        &self,
        starts: BTreeSet<Invocation>,
    ) -> impl Future<Output = Result<BTreeSet<Invocation>, Self::Error>> + Send;

    /// Returns a setting, such as the mode that an operator chose.
    fn setting(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<String>, Self::Error>> + Send;

    /// Writes a setting; `None` removes it.
    fn set_setting(
        &self,
        key: &str,
        value: Option<String>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Traces of runners. A runner has its trace from its end on.
pub trait Traces: Send + Sync + 'static {
    /// Takes a runner that ended, and the address of its job's run. Returns at once, whatever a collector does. The same
    /// runner twice is the same trace.
    fn add(&self, ended: &VerdictRecord, job_url: Option<&str>);

    /// Returns what was sent so far.
    fn status(&self) -> TracesStatus;
}
