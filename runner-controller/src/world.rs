//! What the controller asks of the outside, and what the outside tells it.
//!
//! A trait has the verbs its caller needs, and says what a retry means. What happens by itself
//! arrives as a [`Event`]: the state of one thing as it is *now*, never a delta, so that a signal,
//! a slow full look and a look after a restart are the same message.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pool::{RunnerName, Shortages, SlotId, Verdict};

pub use crate::pool::{
    Deleted, EndRecord, Exit, Invocation, JobNote, ListedRunner, RunnerId, RunnerRecord,
    StartRecord, UnitObservation, UnitState,
};

/// An error the controller can weigh.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// True if the same call may well work later without anybody changing anything.
    fn is_transient(&self) -> bool;
}

/// What arrives without being asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A unit changed, or was looked at.
    Unit(UnitObservation),
    /// Root of this slot's container is connected and waits for its config.
    ConfigRequested {
        /// The slot.
        slot: SlotId,
    },
    /// The waiting connection of this slot went away unanswered.
    RequestDropped {
        /// The slot.
        slot: SlotId,
    },
    /// The slot's job says that it started. Untrusted text, already bounded and escaped.
    JobStarted {
        /// The slot.
        slot: SlotId,
        /// What the job said of itself.
        note: JobNote,
    },
    /// All resources that the host runs short of.
    Shortages(Shortages),
    /// Root checked the firewall, or has not for too long.
    Firewall {
        /// Why nothing may be started or registered.
        problem: Option<String>,
    },
}

/// An error with all its causes, on one line, as the journal wants it.
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

/// Units of ours, by slot. Nothing here waits for a unit to change: that arrives as a [`Event`].
pub trait Machines: Send + Sync + 'static {
    /// Why a call failed.
    type Error: Failure;

    /// Asks systemd to start the slot's unit. Already starting or active counts as done.
    /// A unit that failed is started as it is.
    fn start(&self, slot: &SlotId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Asks systemd to stop it in order: the runner hears SIGINT and tells GitHub "cancelled".
    /// Already gone counts as done, so retrying is safe.
    fn stop(&self, slot: &SlotId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Ends it at once (SIGKILL to the container). Only for a runner without a job. Already gone
    /// counts as done.
    fn kill(&self, slot: &SlotId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Looks at every unit of ours that systemd has loaded, pools that the configuration no longer
    /// has included, and at every configured slot: one without a unit is inactive, and comes with
    /// the newest records of its lives.
    fn observe(&self) -> impl Future<Output = Result<Vec<UnitObservation>, Self::Error>> + Send;
}

/// The encoded JIT config: a bearer secret until its runner is gone. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct JitConfig(String);

impl JitConfig {
    /// Wraps GitHub's `encoded_jit_config`.
    #[must_use]
    pub fn new(encoded: String) -> Self {
        Self(encoded)
    }

    /// The secret itself, for the one place that hands it over.
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

/// What a new registration is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintRequest {
    /// A name that was never sent before.
    pub name: RunnerName,
    /// The pool's labels.
    pub labels: Vec<String>,
    /// The runner group, by name.
    pub runner_group: String,
    /// Where the runner checks out, absolute in the container.
    pub work_folder: String,
}

/// A registration as it was minted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minted {
    /// GitHub's id.
    pub id: RunnerId,
    /// What the runner needs to be that runner.
    pub config: JitConfig,
}

/// Why GitHub did not do what was asked, in the kinds that call for different deeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegistryErrorKind {
    /// 401: the token is wrong, expired or revoked.
    Unauthorized,
    /// 403 that is no limit: a permission or a policy.
    Forbidden,
    /// 404: no such repository, organisation or group, or no access to it.
    NotFound,
    /// 409: the name is taken.
    NameTaken,
    /// 422 and other refusals of the request itself.
    Invalid,
    /// A primary or secondary rate limit; nothing is sent before `retry_after` has passed.
    Limited,
    /// 5xx, or an answer that is not the documented shape: GitHub's own trouble.
    Server,
    /// No whole answer: DNS, connect, TLS, timeout, cut off. A mint may have happened.
    Unreachable,
}

/// A failed call, translated for the person who reads the journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {message}{}{}", advice.as_ref().map(|a| format!(" ({a})")).unwrap_or_default(), request_id.as_ref().map(|r| format!(" [GitHub request {r}]")).unwrap_or_default())]
pub struct RegistryError {
    /// `generate-jitconfig`, `list runners`, `delete runner`, `list runner groups`.
    pub operation: &'static str,
    /// The kind.
    pub kind: RegistryErrorKind,
    /// The HTTP status, if an answer came.
    pub status: Option<u16>,
    /// What GitHub or the network said, bounded, without secrets and control characters.
    pub message: String,
    /// What to change, when that is known.
    pub advice: Option<String>,
    /// GitHub's `X-GitHub-Request-Id`.
    pub request_id: Option<String>,
    /// How long not to ask again, when GitHub said so.
    pub retry_after: Option<Duration>,
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
    /// True if the request may have been carried out although no good answer came.
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

/// The runners that GitHub knows.
pub trait Registry: Send + Sync + 'static {
    /// Registers a runner and gets its JIT config.
    ///
    /// Never retried under the same name, by us or by the client below: see [`RunnerName`].
    fn mint(
        &self,
        request: &MintRequest,
    ) -> impl Future<Output = Result<Minted, RegistryError>> + Send;

    /// Every runner of the scope, all pages; a conditional request, free when nothing changed.
    ///
    /// Eventually consistent: a runner may be missing for seconds after it was minted.
    fn list(&self) -> impl Future<Output = Result<Vec<ListedRunner>, RegistryError>> + Send;

    /// Sends nothing for this long: a limit that an earlier daemon was told of holds for this one.
    fn hold(&self, wait: Duration);

    /// Removes a registration. Safe to repeat.
    fn delete(&self, id: RunnerId) -> impl Future<Output = Result<Deleted, RegistryError>> + Send;
}

/// The sockets of the slots.
pub trait Handshake: Send + Sync + 'static {
    /// Why a call failed.
    type Error: Failure;

    /// Makes a slot ready for a new life: sockets listening, nothing left over from the last one.
    /// Called before its unit is started, never while one lives.
    fn prepare(&self, slot: &SlotId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Writes the config to the waiting connection and closes it. At most once per life: a second
    /// call, or a call with nobody waiting, is an error and sends nothing.
    fn answer(
        &self,
        slot: &SlotId,
        config: JitConfig,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// How a runner ended: one row of the records, and one entry of the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// The slot it was in.
    #[serde(rename = "machine")]
    pub slot: SlotId,
    /// Its verdict.
    pub verdict: Verdict,
    /// Its name at GitHub, if it was registered. The host may have had another id then.
    pub runner: Option<String>,
    /// Its id at GitHub.
    #[serde(default)]
    pub runner_id: Option<RunnerId>,
    /// Its job, as the job described itself. Not to be trusted.
    #[serde(default)]
    pub job: Option<JobNote>,
    /// Wall-clock time of its end, in milliseconds since 1970.
    pub ended_unix_ms: u64,
    /// Milliseconds from its start to its end.
    pub lived_ms: u64,
    /// Milliseconds that its job ran.
    pub job_ms: Option<u64>,
    /// How its container exited, in words: `status 0`, `signal KILL`.
    pub exit: Option<String>,
    /// Highest memory use in bytes, if the kernel counted it.
    pub memory_peak_bytes: Option<u64>,
    /// Number of processes that the kernel killed because memory ran out.
    pub oom_kills: u64,
    /// systemd's id of the start. A start has one verdict.
    #[serde(default)]
    pub invocation: Option<Invocation>,
}

/// What survives a restart of the daemon: lives, verdicts, settings. Never a secret.
///
/// Calls take effect in the order in which they were first polled. A call that failed changed
/// nothing and may be repeated. One that is cancelled is carried out in full or not at all.
pub trait Records: Send + Sync + 'static {
    /// Why a call failed.
    type Error: Failure;

    /// Every life on record, by slot. Records that cannot be read are left out, with a warning in
    /// the journal.
    fn load(&self) -> impl Future<Output = Result<Vec<RunnerRecord>, Self::Error>> + Send;

    /// Keeps a life's record, in place of the one its slot had.
    fn put(&self, runner: RunnerRecord) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Drops the record of a slot. None there counts as done.
    fn remove(&self, slot: SlotId) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Ends a life: drops its slot's record and keeps the verdict, both or neither. A second
    /// verdict on the same invocation is not kept, so that repeating is safe.
    fn close(&self, verdict: VerdictRecord)
    -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The last `count` verdicts, newest first.
    fn recent(
        &self,
        count: usize,
    ) -> impl Future<Output = Result<Vec<VerdictRecord>, Self::Error>> + Send;

    /// A setting that people made while the daemon ran, such as a drain.
    fn setting(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<String>, Self::Error>> + Send;

    /// Keeps a setting; `None` drops it.
    fn set_setting(
        &self,
        key: &str,
        value: Option<String>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
