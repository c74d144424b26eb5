//! Verdicts: the judgements of how and why runners ended.

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

use super::names::SlotId;
use super::observation::{Invocation, JobNote, RunnerId};

/// Judgement of a runner's end. Every runner gets exactly one.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It ran its job, whatever the result of the job.
    JobDone,
    /// It was registered and exited successfully without a job: GitHub let the registration expire.
    IdleExpired,
    /// It listened, and GitHub did not know its registration.
    Ghost,
    /// Its unit failed before it requested a JIT config.
    BootFailed,
    /// It did not request a JIT config in time.
    BootTimeout,
    /// GitHub did not show it online in time.
    RegistrationTimeout,
    /// Its job ran too long.
    JobTimeout,
    /// The kernel killed processes of it because memory ran out.
    Oom,
    /// GitHub refuses this version of the runner (exit status 7).
    VersionRefused,
    /// A drain ended it.
    Drained,
    /// It was a spare and was replaced because of its age.
    SpareAged,
    /// It was idle and was replaced because of its age.
    IdleAged,
    /// It was replaced because the image or the limits changed.
    Rolled,
    /// It was one too many, or in a slot that is not configured any more.
    ScaledDown,
    /// An operator removed it.
    Removed,
    /// It was a spare that ended, or dropped its request, before it got a JIT config.
    SpareLost,
    /// It exited with a status or a signal that no other verdict explains.
    Crashed,
    /// The host restarted.
    HostRestart,
    /// It is gone and left no record.
    Unexplained,
}

impl Verdict {
    /// All verdicts, for metrics with a fixed set of labels.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// Returns true if an operator should look into it: neither a plan nor a job ended the runner.
    #[must_use]
    pub fn is_failure(self) -> bool {
        match self {
            Self::BootFailed
            | Self::BootTimeout
            | Self::RegistrationTimeout
            | Self::JobTimeout
            | Self::Oom
            | Self::VersionRefused
            | Self::SpareLost
            | Self::Crashed
            | Self::Unexplained => true,
            Self::JobDone
            | Self::IdleExpired
            | Self::Ghost
            | Self::Drained
            | Self::SpareAged
            | Self::IdleAged
            | Self::Rolled
            | Self::ScaledDown
            | Self::Removed
            | Self::HostRestart => false,
        }
    }
}

/// Record of a runner that ended: one row of the database, and one entry of the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// The slot it was in.
    #[serde(rename = "machine")]
    pub slot: SlotId,
    /// Its verdict.
    pub verdict: Verdict,
    /// Its name at GitHub, if it was registered. The host may have had another id then.
    pub runner: Option<String>,
    /// GitHub's id of it.
    #[serde(default)]
    pub runner_id: Option<RunnerId>,
    /// Its job's description of itself. Not to be trusted.
    #[serde(default)]
    pub job: Option<JobNote>,
    /// Wall-clock time of its end, in milliseconds since 1970.
    pub ended_unix_ms: u64,
    /// Milliseconds from its start to its end.
    pub lived_ms: u64,
    /// Milliseconds that its job ran.
    pub job_ms: Option<u64>,
    /// Exit of its container, in words: `status 0`, `signal KILL`.
    pub exit: Option<String>,
    /// Highest memory use in bytes, if the kernel counted it.
    pub memory_peak_bytes: Option<u64>,
    /// Number of processes that the kernel killed because memory ran out.
    pub oom_kills: u64,
    /// systemd's id of the start. A start has one verdict.
    #[serde(default)]
    pub invocation: Option<Invocation>,
}
