//! Verdicts: the judgements of how and why runners ended.

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

use super::names::SlotId;
use super::observation::{Invocation, JobNote, ResourceUse, RunnerId};
use super::timeline::PhaseEntry;
use super::version::RunnerVersion;

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
    /// GitHub refused its registration before it was online (exit status 1).
    RegistrationRefused,
    /// It was idle, and GitHub did not know its registration any more (exit status 1): an operator
    /// deleted it at GitHub.
    RegistrationDeleted,
    /// Another listener used its registration (exit status 5).
    SessionConflict,
    /// It reached no server of GitHub for about 12 minutes (exit status 2).
    GithubUnreachable,
    /// Its listener wanted to update itself (exit status 3 or 4).
    UpdateRequested,
    /// Its listener aborted before a job (exit status 134 or 255).
    ListenerAborted,
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
    /// Another program than the daemon stopped it: `systemctl stop`, a shutdown of the
    /// host, or a SIGTERM to its listener.
    Stopped,
    /// It was a spare that ended, or dropped its request, before it got a JIT config.
    SpareLost,
    /// Another program took the address from its link.
    AddressLost,
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
        self.remedy_for_slots().is_some()
    }

    /// Returns the advice to the operator about a runner of this slot, if the verdict is a failure.
    #[must_use]
    pub fn remedy(self, slot: &SlotId) -> Option<String> {
        let text = self.remedy_for_slots()?;
        Some(text.replace("SLOT", &slot.to_string()))
    }

    /// Returns the advice, in which `SLOT` stands for the runner's slot.
    fn remedy_for_slots(self) -> Option<&'static str> {
        match self {
            Self::BootFailed | Self::SpareLost => Some("run `runner-logs SLOT`"),
            Self::BootTimeout => Some(
                "run `runner-logs SLOT`; the host may be overloaded, or timeouts.boot too short",
            ),
            Self::RegistrationTimeout => {
                Some("run `runner-controller doctor`, which tries the runners' network")
            }
            Self::JobTimeout => Some("raise timeouts.job, or shorten the job"),
            Self::Oom => Some("raise limits.memory, or give the layer less of it"),
            Self::VersionRefused | Self::UpdateRequested => Some(
                "put a newer runner into the image: `runner-controller docs version-refused` tells how",
            ),
            Self::RegistrationRefused => Some(
                "run `runner-logs SLOT`: GitHub refused its registration, its session or its version, and the listener says which",
            ),
            Self::SessionConflict => Some(
                "look for a copy of this host, or of its state, that runs the same registration",
            ),
            Self::GithubUnreachable => Some(
                "run `runner-controller doctor`, which tries the runners' network; GitHub was out of reach for 12 minutes",
            ),
            Self::ListenerAborted => Some(
                "run `runner-controller prepare-image` again, which tries the listener: a library may be \
                 missing in the image",
            ),
            Self::AddressLost => Some(
                "keep network managers off rc-* links: `runner-controller docs firewall` tells how",
            ),
            Self::Crashed => Some("run `runner-logs SLOT`"),
            Self::Unexplained => Some(
                "run `df -h /run`: a full file system keeps the record of an end from being written",
            ),
            Self::JobDone
            | Self::IdleExpired
            | Self::Ghost
            | Self::Drained
            | Self::SpareAged
            | Self::IdleAged
            | Self::Rolled
            | Self::ScaledDown
            | Self::Removed
            | Self::RegistrationDeleted
            | Self::Stopped
            | Self::HostRestart => None,
        }
    }
}

/// Result of a job, as far as the host knows it.
///
/// GitHub may know better: a runner that is killed reports nothing, and GitHub decides later.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobResult {
    /// Every step was good.
    Succeeded,
    /// A step failed, or the listener could not report the end.
    Failed,
    /// GitHub cancelled it.
    Cancelled,
    /// GitHub gave it up, because its runner did not renew its lock.
    Abandoned,
    /// It started, and its runner ended before it: by a signal, a shutdown or a crash.
    Interrupted,
    /// The runner did not tell it.
    Unknown,
}

impl JobResult {
    /// All results, for metrics with a fixed set of labels.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// Returns the result in an exit status of GitHub's listener.
    ///
    /// The status is 100 and the number of the result (`TaskResult` in actions/runner), if the listener's
    /// environment has `ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED`.
    #[must_use]
    pub fn of_status(status: i32) -> Option<Self> {
        match status {
            // 101 is "succeeded with issues", which no job of GitHub Actions has.
            100 | 101 => Some(Self::Succeeded),
            102 => Some(Self::Failed),
            103 => Some(Self::Cancelled),
            // 104 is "skipped".
            104 => Some(Self::Unknown),
            105 => Some(Self::Abandoned),
            _ => None,
        }
    }

    /// Returns true if the job did not end by its own steps or by a request at GitHub.
    #[must_use]
    pub fn is_cut_short(self) -> bool {
        match self {
            Self::Abandoned | Self::Interrupted => true,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Unknown => false,
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
    /// Milliseconds from its start until its container asked for its JIT config, if this daemon saw it.
    #[serde(default)]
    pub asked_after_ms: Option<u64>,
    /// Milliseconds from its start until its listener wrote that it listens for jobs. Not to be trusted.
    #[serde(default)]
    pub listening_after_ms: Option<u64>,
    /// Milliseconds that its job ran.
    pub job_ms: Option<u64>,
    /// Result of its job, if it had one.
    #[serde(default)]
    pub result: Option<JobResult>,
    /// Exit of its container, in words: `status 0`, `signal KILL`.
    pub exit: Option<String>,
    /// The last line that it wrote, escaped and bounded. Not to be trusted after a job.
    #[serde(default)]
    pub last_line: Option<String>,
    /// Highest memory use in bytes, if the kernel counted it.
    pub memory_peak_bytes: Option<u64>,
    /// Number of processes that the kernel killed because memory ran out.
    pub oom_kills: u64,
    /// systemd's id of the start. A start has one verdict.
    #[serde(default)]
    pub invocation: Option<Invocation>,
    /// The phases that it passed through; empty if they are not known.
    #[serde(default)]
    pub phases: Vec<PhaseEntry>,
    /// Processor time that it used, in milliseconds, if the kernel counted it.
    #[serde(default)]
    pub cpu_ms: Option<u64>,
    /// Disk and network that it used.
    #[serde(default, flatten)]
    pub usage: ResourceUse,
    /// Identity of its image, layer and limits, if its start record was read.
    #[serde(default)]
    pub generation: Option<String>,
    /// Version of its listener, if GitHub's list showed it. Not to be trusted after a job.
    #[serde(default)]
    pub version: Option<RunnerVersion>,
}
