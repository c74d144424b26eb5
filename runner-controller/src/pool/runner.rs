//! One runner's life in a slot, and how it is judged when it ends.

use serde::{Deserialize, Serialize};
use strum::VariantArray;

use super::names::{RunnerName, Slot, SlotId};
use super::observation::{EndRecord, Exit, Invocation, JobNote, RunnerId};
use super::time::Timestamp;

/// Where a runner is in its life. `Idle` and `Busy` mean what GitHub means by them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Its unit was started; it is not up, or has not asked for its config yet.
    Booting,
    /// Up, and waiting for a config. GitHub does not know it.
    Spare,
    /// A config is being minted for it.
    Minting,
    /// It was given its config and is not seen online yet.
    Registering,
    /// Registered and waiting for a job.
    Idle,
    /// Running its one job. Left alone until the job ends or its timeout passes.
    Busy,
    /// Being brought to its end.
    Retiring {
        /// Why.
        cause: Cause,
        /// GitHub must say first that it has no job (DELETE answered 204 or 404).
        deregister_first: bool,
        /// When its unit was last asked to end.
        end_asked: Option<Timestamp>,
    },
}

impl Phase {
    /// Returns the phase without its details.
    #[must_use]
    pub fn kind(&self) -> PhaseKind {
        match self {
            Self::Booting => PhaseKind::Booting,
            Self::Spare => PhaseKind::Spare,
            Self::Minting => PhaseKind::Minting,
            Self::Registering => PhaseKind::Registering,
            Self::Idle => PhaseKind::Idle,
            Self::Busy => PhaseKind::Busy,
            Self::Retiring { .. } => PhaseKind::Retiring,
        }
    }

    /// Returns the cause of a retirement.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Retiring { cause, .. } => Some(*cause),
            Self::Booting
            | Self::Spare
            | Self::Minting
            | Self::Registering
            | Self::Idle
            | Self::Busy => None,
        }
    }
}

/// A [`Phase`] without its details, as status, metrics and records name it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::AsRefStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseKind {
    /// [`Phase::Booting`]
    Booting,
    /// [`Phase::Spare`]
    Spare,
    /// [`Phase::Minting`]
    Minting,
    /// [`Phase::Registering`]
    Registering,
    /// [`Phase::Idle`]
    Idle,
    /// [`Phase::Busy`]
    Busy,
    /// [`Phase::Retiring`]
    Retiring,
}

impl PhaseKind {
    /// All phases, in the order in which a runner passes through them.
    pub const ALL: &'static [Self] = Self::VARIANTS;
}

/// Reason for ending a runner that has not ended by itself. Each has the name of its [`Verdict`].
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::AsRefStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It did not become a spare in time.
    BootTimeout,
    /// GitHub did not show it online in time.
    RegistrationTimeout,
    /// Its job ran longer than allowed.
    JobTimeout,
    /// It listens, and GitHub's list has twice not had it.
    Ghost,
    /// A spare past its age.
    SpareAged,
    /// An idle runner past its age.
    IdleAged,
    /// Started from an image or limits that are no longer configured.
    Rolled,
    /// More than wanted, or in a slot that is no longer configured.
    ScaledDown,
    /// The host is being drained.
    Drained,
    /// An operator asked for everything to be removed.
    Removed,
    /// Its waiting connection went away, so it can never be answered.
    SpareLost,
}

impl Cause {
    /// All causes.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// True if this may end a runner that has a job.
    #[must_use]
    pub fn may_end_a_job(self) -> bool {
        match self {
            Self::JobTimeout | Self::Removed => true,
            Self::BootTimeout
            | Self::RegistrationTimeout
            | Self::Ghost
            | Self::SpareAged
            | Self::IdleAged
            | Self::Rolled
            | Self::ScaledDown
            | Self::Drained
            | Self::SpareLost => false,
        }
    }

    /// Returns the verdict on a runner that was ended for this cause.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self {
            Self::BootTimeout => Verdict::BootTimeout,
            Self::RegistrationTimeout => Verdict::RegistrationTimeout,
            Self::JobTimeout => Verdict::JobTimeout,
            Self::Ghost => Verdict::Ghost,
            Self::SpareAged => Verdict::SpareAged,
            Self::IdleAged => Verdict::IdleAged,
            Self::Rolled => Verdict::Rolled,
            Self::ScaledDown => Verdict::ScaledDown,
            Self::Drained => Verdict::Drained,
            Self::Removed => Verdict::Removed,
            Self::SpareLost => Verdict::SpareLost,
        }
    }
}

/// Judgement of how and why a runner ended. Every runner gets exactly one.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::AsRefStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It ran its job, whatever became of the job.
    JobDone,
    /// It was registered and ended well without a job: GitHub let the registration lapse.
    IdleExpired,
    /// It listened for jobs that GitHub would never send.
    Ghost,
    /// Its unit failed before it asked for a config.
    BootFailed,
    /// It did not ask for a config in time.
    BootTimeout,
    /// GitHub did not show it online in time.
    RegistrationTimeout,
    /// Its job ran too long.
    JobTimeout,
    /// The kernel killed some of it for want of memory.
    Oom,
    /// GitHub refuses this version of the runner (exit status 7).
    VersionRefused,
    /// Ended by a drain.
    Drained,
    /// A spare replaced for its age.
    SpareAged,
    /// An idle runner replaced for its age.
    IdleAged,
    /// Replaced because the image or limits changed.
    Rolled,
    /// One too many, or in a slot no longer configured.
    ScaledDown,
    /// Removed by an operator.
    Removed,
    /// A spare that ended, or stopped waiting, before it was answered.
    SpareLost,
    /// It ended with a status or a signal that no other verdict explains.
    Crashed,
    /// The host restarted under it.
    HostRestart,
    /// It is gone and left no record.
    Unexplained,
}

impl Verdict {
    /// All verdicts, for metrics with a fixed set of labels.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// True if an operator should look: nothing planned and no job ended it.
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

/// Who it is at GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// GitHub's id; unknown for a life that was adopted while its mint was under way.
    pub id: Option<RunnerId>,
    /// Its name.
    pub name: RunnerName,
}

/// The job it runs, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What the hook said; empty if only GitHub's list told.
    pub note: JobNote,
    /// When it started, or was first known to run.
    pub since: Timestamp,
}

/// One runner in one slot, from the start call until its unit is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// Its slot.
    pub slot: Slot,
    /// Where it is.
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// When it was started.
    pub started_at: Timestamp,
    /// systemd's name for this start, once seen.
    pub invocation: Option<Invocation>,
    /// What it was started from; unknown for a life whose record is gone.
    pub generation: Option<String>,
    /// Its unit is active: booted, network set.
    pub active: bool,
    /// Its registration, if one was made for it.
    pub registration: Option<Registration>,
    /// Its job, once one started.
    pub job: Option<Job>,
    /// A step for it is under way.
    pub pending: bool,
    /// No step before this moment, after one failed.
    pub retry_at: Option<Timestamp>,
    /// Steps that failed in a row.
    pub attempts: u32,
    /// Lists in a row that should have had it and did not.
    pub missed: u8,
    /// When GitHub's list last showed it offline.
    pub offline_seen: Option<Timestamp>,
}

impl Runner {
    pub(super) fn new(slot: Slot, phase: Phase, now: Timestamp) -> Self {
        Self {
            slot,
            phase,
            since: now,
            started_at: now,
            invocation: None,
            generation: None,
            active: false,
            registration: None,
            job: None,
            pending: false,
            retry_at: None,
            attempts: 0,
            missed: 0,
            offline_seen: None,
        }
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Timestamp) {
        self.phase = phase;
        self.since = now;
        self.retry_at = None;
        self.attempts = 0;
    }

    /// A life that was given a config and is not known to have had a job.
    pub(super) fn may_be_registered(&self) -> bool {
        self.registration.is_some() && self.job.is_none()
    }

    /// Judges this life by what is known of it and by the record of its end.
    #[must_use]
    pub fn judge(&self, end: Option<&EndRecord>) -> Verdict {
        if let Phase::Retiring { cause, .. } = self.phase {
            return cause.verdict();
        }
        let Some(end) = end else {
            return Verdict::Unexplained;
        };
        if end.oom_kills > 0 || end.service_result == "oom-kill" {
            return Verdict::Oom;
        }
        match (&self.phase, &end.exit) {
            (Phase::Booting, _) => Verdict::BootFailed,
            (Phase::Spare | Phase::Minting, Exit::Status(0)) if self.registration.is_none() => {
                Verdict::SpareLost
            }
            // Constants.Runner.ReturnCode in actions/runner: 7 is RunnerVersionDeprecated.
            (_, Exit::Status(7)) => Verdict::VersionRefused,
            // 100 to 105 are a job's result, where the runner is told to return it.
            (_, Exit::Status(100..=105)) => Verdict::JobDone,
            (_, Exit::Status(0)) if self.job.is_some() => Verdict::JobDone,
            (_, Exit::Status(0)) => Verdict::IdleExpired,
            (_, Exit::Status(_) | Exit::Signal(_) | Exit::Unknown) => Verdict::Crashed,
        }
    }
}

/// A runner that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The runner as it was last known.
    pub runner: Runner,
    /// Its verdict.
    pub verdict: Verdict,
    /// Root's record of its end.
    pub end: Option<EndRecord>,
    /// Its registration, if GitHub may still have it.
    pub orphan: Option<Registration>,
}

/// The daemon's record of a runner while it lasts, for the daemon that comes after this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerRecord {
    /// The slot; each has at most one record.
    pub slot: SlotId,
    /// The boot that `since`, `started_at` and the job's `since` are counted in. A runner of another
    /// boot ended with it.
    pub boot_id: String,
    /// systemd's id of the start, once seen.
    pub invocation: Option<Invocation>,
    /// The phase.
    pub phase: PhaseKind,
    /// The start of that phase.
    pub since: Timestamp,
    /// The start of the runner.
    pub started_at: Timestamp,
    /// Its registration.
    pub registration: Option<Registration>,
    /// Its job.
    pub job: Option<Job>,
}

impl RunnerRecord {
    /// Returns the record of a runner in `slot` as it is now.
    #[must_use]
    pub fn of(runner: &Runner, slot: SlotId, boot_id: String) -> Self {
        Self {
            slot,
            boot_id,
            invocation: runner.invocation.clone(),
            phase: runner.phase.kind(),
            since: runner.since,
            started_at: runner.started_at,
            registration: runner.registration.clone(),
            job: runner.job.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Display};
    use std::str::FromStr;

    use super::super::{FailureKind, Resource};
    use super::*;

    /// Checks that text, JSON and JSON keys spell every variant as `names` does.
    fn spelled<T>(all: &[T], names: &[&str])
    where
        T: Copy + Debug + Display + FromStr + PartialEq + Ord + Serialize,
        T: for<'de> Deserialize<'de> + AsRef<str>,
    {
        assert_eq!(
            all.iter().map(ToString::to_string).collect::<Vec<_>>(),
            names
        );
        for (variant, name) in all.iter().zip(names) {
            assert_eq!(name.parse::<T>().ok(), Some(*variant));
            assert_eq!(variant.as_ref(), *name);
            let json = serde_json::to_string(variant).unwrap();
            assert_eq!(json, format!("{name:?}"));
            assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *variant);
        }
        assert!("Busy".parse::<T>().is_err() && "".parse::<T>().is_err());
    }

    /// Records, scripts and dashboards depend on these spellings.
    #[test]
    fn names_in_records_status_and_metrics_do_not_change() {
        let phases = "booting spare minting registering idle busy retiring";
        let causes = "boot_timeout registration_timeout job_timeout ghost spare_aged idle_aged \
            rolled scaled_down drained removed spare_lost";
        let verdicts = "job_done idle_expired ghost boot_failed boot_timeout registration_timeout \
            job_timeout oom version_refused drained spare_aged idle_aged rolled scaled_down \
            removed spare_lost crashed host_restart unexplained";
        let failures = "boot mint unauthorized forbidden not_found invalid limited expired version";
        let resources = "state_bytes state_files layer_bytes layer_files run_bytes run_files \
            memory memory_pressure tasks open_files own_files";
        let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
        spelled(PhaseKind::ALL, &words(phases));
        spelled(Cause::ALL, &words(causes));
        spelled(Verdict::ALL, &words(verdicts));
        spelled(FailureKind::ALL, &words(failures));
        spelled(Resource::ALL, &words(resources));
    }

    #[test]
    fn a_cause_is_named_as_its_verdict() {
        for cause in Cause::ALL {
            assert_eq!(cause.to_string(), cause.verdict().to_string());
        }
    }
}
