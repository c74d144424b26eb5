//! One runner in a slot: its phases, and the judgement of its end.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

use super::backoff;
use super::names::{RunnerName, Slot, SlotId};
use super::observation::{EndRecord, Exit, Invocation, JobNote, ListedRunner, RunnerId};
use super::phase::PhaseKind;
use super::scope::ScopeId;
use super::time::Timestamp;
use super::timeline::Timeline;
use super::verdict::{JobResult, Verdict};
use super::version::RunnerVersion;

/// Phase of a runner. `Idle` and `Busy` mean the same as at GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Its unit was started. It is not active, or has not requested a JIT config yet.
    Booting,
    /// It is active and waits for a JIT config. GitHub does not know it.
    Spare,
    /// A JIT config is being minted for it.
    Minting,
    /// It got its JIT config, and GitHub has not shown it online yet.
    Registering,
    /// It is registered and waits for a job.
    Idle,
    /// It runs its one job. It is left alone until the job ends or exceeds its time limit.
    Busy,
    /// It is being ended.
    Retiring {
        /// The reason.
        cause: Cause,
        /// True while GitHub must still confirm that it has no job (DELETE answered 204 or 404).
        deregister_first: bool,
        /// Time of the last request to end its unit.
        end_requested_at: Option<Timestamp>,
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

/// Reason for ending a runner that has not ended by itself. Each has the name of its [`Verdict`].
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It did not become a spare in time.
    BootTimeout,
    /// GitHub did not show it online in time.
    RegistrationTimeout,
    /// Its job ran longer than allowed.
    JobTimeout,
    /// It listens, and two of GitHub's lists did not have it.
    Ghost,
    /// It is a spare that reached its maximum age.
    SpareAged,
    /// It is idle and reached its maximum age.
    IdleAged,
    /// Its image or limits are not configured any more.
    Rolled,
    /// It is one too many, in a slot that is not configured any more, or registered in a scope that is
    /// not.
    ScaledDown,
    /// An operator drains the host.
    Drained,
    /// An operator removes all runners.
    Removed,
    /// It dropped its request, so it can never get a JIT config.
    SpareLost,
    /// Another program took the address from its link, so it reaches nothing.
    AddressLost,
}

impl Cause {
    /// All causes.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// Returns true if it may end a runner that has a job.
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
            | Self::SpareLost
            | Self::AddressLost => false,
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
            Self::AddressLost => Verdict::AddressLost,
        }
    }
}

/// Call that a step makes for a runner. Only its own answer ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Start of its unit.
    Start,
    /// Mint, and delivery of the JIT config.
    Mint,
    /// Deregistration, or the question whether GitHub still has the registration.
    Deregister,
    /// Stop or kill of its unit.
    End,
}

/// A runner's registration at GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Scope in which it was minted; not known if an earlier version wrote the record.
    pub scope: Option<ScopeId>,
    /// GitHub's id; not known for a runner that was adopted during its mint.
    pub id: Option<RunnerId>,
    /// Name of the runner.
    pub name: RunnerName,
}

/// A runner's job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The job's description of itself; empty if only GitHub's list shows the job.
    pub note: JobNote,
    /// Start of the job, or the first observation of it.
    pub since: Timestamp,
}

/// Number of readings in a row after which a link without an address has lost it.
const BARE_READINGS: u8 = 2;
/// Number of lists in a row after which an offline idle runner counts as unreachable.
const OFFLINE_LISTS: u8 = 2;

/// One runner in one slot, from the start call until its unit is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// Its slot.
    pub slot: Slot,
    /// Its phase.
    pub phase: Phase,
    /// Start of the phase.
    pub since: Timestamp,
    /// Start of the runner.
    pub started_at: Timestamp,
    /// The phases so far.
    pub timeline: Timeline,
    /// Time at which its container asked for its JIT config while it booted. An adopted runner may have none.
    pub asked_at: Option<Timestamp>,
    /// systemd's id of its start, once seen.
    pub invocation: Option<Invocation>,
    /// Identity of its image and limits; not known if its start record is gone.
    pub generation: Option<String>,
    /// True if its unit is active: booted, with a network.
    pub active: bool,
    /// Its registration, if a mint was begun for it.
    pub registration: Option<Registration>,
    /// Its job, once one started.
    pub job: Option<Job>,
    /// The call for it that is under way.
    pub pending: Option<Call>,
    /// Earliest time of the next step, after a step failed.
    pub retry_at: Option<Timestamp>,
    /// Number of steps that failed in a row.
    pub attempts: u32,
    /// True if the newest list of its scope shows its id under its name.
    pub is_listed: bool,
    /// True if any list showed its id under its name.
    pub was_listed: bool,
    /// True if only the slot in a listed name tells that the registration is its own. Another host with
    /// this host's name may have made it.
    pub is_claimed: bool,
    /// True if the job reported itself, or is on record. Otherwise a list tells of it.
    pub is_job_reported: bool,
    /// Scopes whose newest list lacks the runner, if neither its name nor its pool tells its scope.
    pub missing_from: BTreeSet<ScopeId>,
    /// Version of its listener, once a list showed it. Not to be trusted.
    pub version: Option<RunnerVersion>,
    /// Number of lists in a row that should have had it and did not.
    pub missed_lists: u8,
    /// Number of readings in a row that showed its link without an address.
    pub bare_readings: u8,
    /// Number of lists in a row that showed it offline.
    pub offline_lists: u8,
    /// Time at which GitHub's list last showed it offline.
    pub offline_at: Option<Timestamp>,
}

impl Runner {
    pub(super) fn new(slot: Slot, phase: Phase, now: Timestamp) -> Self {
        Self {
            slot,
            timeline: Timeline::new(phase.kind(), now),
            phase,
            since: now,
            started_at: now,
            asked_at: None,
            invocation: None,
            generation: None,
            active: false,
            registration: None,
            job: None,
            pending: None,
            retry_at: None,
            attempts: 0,
            is_listed: false,
            was_listed: false,
            is_claimed: false,
            is_job_reported: false,
            missing_from: BTreeSet::new(),
            version: None,
            missed_lists: 0,
            bare_readings: 0,
            offline_lists: 0,
            offline_at: None,
        }
    }

    /// Remembers the entry of the newest list of its scope, if that shows it. One without an id is not listed.
    pub(super) fn set_listed(&mut self, listed: Option<&ListedRunner>) {
        let listed = listed.filter(|_| self.id().is_some());
        self.is_listed = listed.is_some();
        self.was_listed |= self.is_listed;
        self.version = listed.and_then(|listed| listed.version).or(self.version);
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Timestamp) {
        self.timeline.enter(phase.kind(), now);
        self.phase = phase;
        self.since = now;
        self.retry_at = None;
        self.attempts = 0;
    }

    /// Begins to end the runner. GitHub is asked first if it may give the runner a job.
    pub(super) fn retire(&mut self, cause: Cause, now: Timestamp) {
        let registered =
            self.may_be_registered() || matches!(self.phase, Phase::Registering | Phase::Idle);
        let phase = Phase::Retiring {
            cause,
            deregister_first: registered && !cause.may_end_a_job(),
            end_requested_at: None,
        };
        self.enter(phase, now);
    }

    pub(super) fn become_busy(&mut self, note: Option<JobNote>, now: Timestamp) {
        let job = self.job.get_or_insert_with(|| Job {
            note: JobNote::default(),
            since: now,
        });
        if let Some(note) = note {
            job.note = note;
        }
        let since = job.since;
        self.enter(Phase::Busy, since);
    }

    /// Delays the next step after one failed, at least by `requested`.
    pub(super) fn delay(&mut self, requested: Option<Duration>, now: Timestamp, random: u32) {
        self.attempts = self.attempts.saturating_add(1);
        let delay = backoff::delay(self.attempts, random);
        self.retry_at = Some(now + delay.max(requested.unwrap_or_default()));
    }

    /// Returns true if only an entry tells of its job that may be another runner's, such as the one before it
    /// in its slot.
    pub(super) fn may_lack_its_job(&self) -> bool {
        self.phase == Phase::Busy && self.is_claimed && !self.is_job_reported
    }

    /// Returns true if a mint was begun for it and no job of it is known.
    pub(super) fn may_be_registered(&self) -> bool {
        self.registration.is_some() && self.job.is_none()
    }

    /// Returns true if two readings in a row showed its link without an address. The first may be older than
    /// the address.
    #[must_use]
    pub fn has_lost_address(&self) -> bool {
        self.bare_readings >= BARE_READINGS
    }

    /// Returns true if it waits for a job that GitHub cannot give it, because two lists in a row showed it
    /// offline. One list may show a listener that just connects again.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.phase == Phase::Idle && self.offline_lists >= OFFLINE_LISTS
    }

    /// Returns the scope in which the runner is registered, if that is known.
    #[must_use]
    pub fn scope(&self) -> Option<&ScopeId> {
        self.registration.as_ref()?.scope.as_ref()
    }

    /// Returns true if it has a registration and no record tells in which scope.
    #[must_use]
    pub fn has_unknown_scope(&self) -> bool {
        self.registration.is_some() && self.scope().is_none()
    }

    /// Returns GitHub's id of the runner, if it is known.
    #[must_use]
    pub fn id(&self) -> Option<RunnerId> {
        self.registration.as_ref()?.id
    }

    /// Returns the name that the runner has at GitHub, if a mint was begun for it.
    #[must_use]
    pub fn name(&self) -> Option<&RunnerName> {
        Some(&self.registration.as_ref()?.name)
    }

    /// Judges the end of the runner by its phase and by root's record.
    #[must_use]
    pub fn verdict(&self, end: Option<&EndRecord>) -> Verdict {
        if let Some(cause) = self.phase.cause() {
            return cause.verdict();
        }
        let Some(end) = end else {
            return Verdict::Unexplained;
        };
        if end.oom_kills > 0 || end.service_result == "oom-kill" {
            return Verdict::Oom;
        }
        match (&self.phase, &end.exit) {
            (_, Exit::Status(status)) if self.job_result_in(*status).is_some() => Verdict::JobDone,
            _ if end.stop_requested => Verdict::Stopped,
            // RuntimeMaxSec= ends a runner while the daemon cannot.
            _ if end.service_result == "timeout" && self.job.is_some() => Verdict::JobTimeout,
            (Phase::Booting, _) => Verdict::BootFailed,
            (Phase::Spare | Phase::Minting, Exit::Status(0)) if self.registration.is_none() => {
                Verdict::SpareLost
            }
            (_, Exit::Status(0)) if self.job.is_some() => Verdict::JobDone,
            (_, Exit::Status(0)) => Verdict::IdleExpired,
            // The processes of a job can choose the status.
            (_, Exit::Status(status)) if self.job.is_none() => self.listener_verdict(*status, end),
            (_, Exit::Status(_) | Exit::Signal(_) | Exit::Unknown) => Verdict::Crashed,
        }
    }

    /// Judges a runner without a job by the exit status of GitHub's listener: `Constants.Runner.ReturnCode`
    /// in actions/runner, and the signals and aborts of .NET.
    fn listener_verdict(&self, status: i32, end: &EndRecord) -> Verdict {
        match status {
            7 => Verdict::VersionRefused,
            // It has no listener, or this is not known.
            _ if self.registration.is_none() => Verdict::Crashed,
            // systemd-nspawn also returns 1 if the container is killed. A listener that GitHub refuses says so.
            1 if self.phase == Phase::Idle && end.says_that_it_listens() => Verdict::Crashed,
            1 if self.phase == Phase::Idle => Verdict::RegistrationDeleted,
            1 => Verdict::RegistrationRefused,
            2 => Verdict::GithubUnreachable,
            3 | 4 => Verdict::UpdateRequested,
            5 => Verdict::SessionConflict,
            // 128 and SIGABRT if a shell reports it; systemd reports 255 for every signal.
            134 | 255 => Verdict::ListenerAborted,
            // 128 and SIGTERM.
            143 => Verdict::Stopped,
            _ => Verdict::Crashed,
        }
    }

    /// Returns the result of the runner's job, if it had one.
    #[must_use]
    pub fn result(&self, verdict: Verdict, end: Option<&EndRecord>) -> Option<JobResult> {
        let exit = end.map(|end| &end.exit);
        if let Some(Exit::Status(status)) = exit
            && let Some(result) = self.job_result_in(*status)
        {
            return Some(result);
        }
        self.job.as_ref()?;
        Some(match end {
            None if verdict == Verdict::HostRestart => JobResult::Interrupted,
            None => JobResult::Unknown,
            // The listener returns 0 for every job unless it was told to return the result.
            Some(end) if end.exit == Exit::Status(0) && !end.returns_result => JobResult::Unknown,
            Some(_) => JobResult::Interrupted,
        })
    }

    /// Returns the result of a job in an exit status. The status of a container that never booted is not
    /// that of a listener.
    fn job_result_in(&self, status: i32) -> Option<JobResult> {
        match self.phase {
            Phase::Booting => None,
            Phase::Spare
            | Phase::Minting
            | Phase::Registering
            | Phase::Idle
            | Phase::Busy
            | Phase::Retiring { .. } => JobResult::of_status(status),
        }
    }
}

/// A runner that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its slot.
    pub slot: SlotId,
    /// The runner as it was last known.
    pub runner: Runner,
    /// Its verdict.
    pub verdict: Verdict,
    /// Result of its job, if it had one.
    pub result: Option<JobResult>,
    /// Root's record of its end.
    pub end: Option<EndRecord>,
    /// Its registration, if GitHub may still have it.
    pub orphan: Option<Registration>,
}

/// The daemon's record of a runner while it lasts, for the daemon that comes after this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerRecord {
    /// The slot. Each slot has at most one record.
    pub slot: SlotId,
    /// The boot in which `since`, `started_at` and the job's `since` are counted. A runner of another
    /// boot ended with it.
    pub boot_id: String,
    /// systemd's id of the start, once seen.
    pub invocation: Option<Invocation>,
    /// Its phase.
    pub phase: PhaseKind,
    /// Start of the phase.
    pub since: Timestamp,
    /// Start of the runner.
    pub started_at: Timestamp,
    /// The phases so far; `None` if an earlier version wrote the record.
    pub timeline: Option<Timeline>,
    /// Its registration.
    pub registration: Option<Registration>,
    /// Its job.
    pub job: Option<Job>,
}

impl RunnerRecord {
    /// Returns the record of a runner as it is now.
    #[must_use]
    pub fn of(runner: &Runner, slot: SlotId, boot_id: String) -> Self {
        // A daemon that finds a name on record takes it for certain. No job makes it so, because the hook does not
        // tell the name.
        let is_certain = !runner.is_claimed;
        // Nor is a job on record that may not be its own. Lists tell the next daemon.
        let has_job = !runner.may_lack_its_job();
        let phase = if has_job {
            runner.phase.kind()
        } else {
            PhaseKind::Registering
        };
        Self {
            slot,
            boot_id,
            invocation: runner.invocation.clone(),
            phase,
            since: runner.since,
            started_at: runner.started_at,
            timeline: Some(runner.timeline.clone()),
            registration: runner.registration.clone().filter(|_| is_certain),
            job: runner.job.clone().filter(|_| has_job),
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
            rolled scaled_down drained removed spare_lost address_lost";
        let verdicts = "job_done idle_expired ghost boot_failed boot_timeout registration_timeout \
            job_timeout oom version_refused registration_refused registration_deleted \
            session_conflict github_unreachable update_requested listener_aborted drained spare_aged \
            idle_aged rolled scaled_down removed stopped spare_lost address_lost crashed host_restart unexplained";
        let results = "succeeded failed cancelled abandoned interrupted unknown";
        let failures = "boot mint unauthorized forbidden not_found invalid limited expired version";
        let resources = "state_bytes state_files layer_bytes layer_files run_bytes run_files \
            memory memory_pressure tasks open_files own_files inotify_instances connections terminals aio_requests";
        let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
        spelled(PhaseKind::ALL, &words(phases));
        spelled(Cause::ALL, &words(causes));
        spelled(Verdict::ALL, &words(verdicts));
        spelled(JobResult::ALL, &words(results));
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
