//! Observed state of one pool.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::backoff::{Backoffs, FailureKind};
use super::names::{Slot, SlotId};
use super::observation::{EndRecord, Exit, Invocation};
use super::runner::{Call, Ended, Phase, Runner};
use super::schedule::{Kept, Silence, Target};
use super::scope::ScopeId;
use super::spec::Spec;
use super::time::Timestamp;
use super::verdict::{JobResult, Verdict};

/// Number of lists in a row without a listening runner that prove it a ghost.
pub(super) const MAX_MISSED_LISTS: u8 = 2;

/// Maximum time that a runner with a job counts for a job of its run that is still told as waiting. Most deliveries arrive
/// within three minutes. A job whose delivery was lost must not wait longer because of another job of its run.
pub(crate) const JOIN_TIME: Duration = Duration::from_mins(5);

/// Maximum number of ended runners whose jobs are remembered, more than a pool ends in five minutes at the default pace.
const MAX_DONE: usize = 1_000;

/// Idle time after which GitHub has accepted a runner, its version included.
pub(super) const ACCEPTED_AFTER: Duration = Duration::from_mins(2);

/// One pool: its desired state, and what is known of its slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Desired state.
    pub spec: Spec,
    /// Runners by slot. A slot that is absent is vacant.
    pub runners: BTreeMap<Slot, Runner>,
    /// Failures that delay new tries.
    pub backoffs: Backoffs,
    /// Maximum number of registrations that may begin now.
    pub mint_quota: usize,
    /// Numbers that the plan works towards, if they are not those of the configuration.
    pub(super) target: Option<Target>,
    /// Runners that are kept although the target is lower.
    pub(super) kept: Option<Kept>,
    /// Runners that ended with a job a short time ago. GitHub may tell later that the job started.
    pub(super) done: VecDeque<Runner>,
    /// Time since which the budget or other jobs leave the pool's scale set no room.
    pub(super) crowded_since: Option<Timestamp>,
    /// Silence of the pool's scale set.
    pub(super) silence: Option<Silence>,
    /// Slots whose container waits for a JIT config. They are kept apart from the runners, because a
    /// request stands whatever is known of the runner that made it.
    pub(super) waiting: BTreeSet<Slot>,
    /// Calls about each slot that are not answered yet. No other runner starts there before: a late answer
    /// would count for it, and a JIT config would go to its container.
    pub(super) unanswered: BTreeSet<(Slot, Call)>,
    /// Time of the last call or observation about each slot's unit. An older observation knows less.
    pub(super) observed_at: BTreeMap<Slot, Timestamp>,
    /// The start that ended last in each slot. A late report of it is not about the next start.
    pub(super) last_ended: BTreeMap<Slot, Invocation>,
    /// Time of the last failed boot in each slot, so that a broken slot does not starve a good one.
    pub(super) boot_failed_at: BTreeMap<Slot, Timestamp>,
}

impl Pool {
    /// Returns an empty pool.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self {
            spec,
            runners: BTreeMap::new(),
            backoffs: Backoffs::default(),
            mint_quota: usize::MAX,
            target: None,
            kept: None,
            done: VecDeque::new(),
            crowded_since: None,
            silence: None,
            waiting: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            observed_at: BTreeMap::new(),
            last_ended: BTreeMap::new(),
            boot_failed_at: BTreeMap::new(),
        }
    }

    /// Returns the full name of a slot.
    #[must_use]
    pub fn slot_id(&self, slot: Slot) -> SlotId {
        SlotId {
            pool: self.spec.name.clone(),
            slot,
        }
    }

    /// Returns the number of runners whose phase satisfies `is`.
    #[must_use]
    pub fn count(&self, is: impl Fn(&Phase) -> bool) -> usize {
        self.runners
            .values()
            .filter(|runner| is(&runner.phase))
            .count()
    }

    /// Returns true if the pool's runners register in `scope`.
    #[must_use]
    pub(super) fn registers_in(&self, scope: &ScopeId) -> bool {
        self.spec.scope.as_ref() == Some(scope)
    }

    /// Returns true if the runner serves the pool's scope, as far as is known.
    ///
    /// A registration whose scope is not on record counts until two lists did not have it.
    #[must_use]
    pub(super) fn serves(&self, runner: &Runner) -> bool {
        match (&runner.registration, runner.scope()) {
            (None, _) => true,
            (Some(_), Some(scope)) => self.registers_in(scope),
            (Some(_), None) => runner.missed_lists < MAX_MISSED_LISTS,
        }
    }

    /// Returns true if an observation that began at `began` may be older than what is known of a
    /// slot's unit.
    #[must_use]
    pub fn has_newer_observation(&self, slot: Slot, began: Timestamp) -> bool {
        self.observed_at.get(&slot).is_some_and(|at| *at >= began)
    }

    /// Returns true if a call about the slot is not answered yet.
    pub(super) fn awaits_answer(&self, slot: Slot) -> bool {
        self.unanswered.iter().any(|(about, _)| *about == slot)
    }

    /// Vacates a slot. Returns the runner that was in it, judged by its phase and by root's record.
    pub(super) fn end(
        &mut self,
        slot: Slot,
        end: Option<EndRecord>,
        now: Timestamp,
        random: u32,
    ) -> Option<Ended> {
        let runner = self.runners.remove(&slot)?;
        let verdict = runner.verdict(end.as_ref());
        Some(self.ended(runner, verdict, end, now, random))
    }

    /// Remembers the end of a runner, and adjusts the backoffs to its verdict.
    pub(super) fn ended(
        &mut self,
        mut runner: Runner,
        verdict: Verdict,
        end: Option<EndRecord>,
        now: Timestamp,
        random: u32,
    ) -> Ended {
        // A runner that was never seen alive is known by the record of its end alone.
        let recorded = end.as_ref().map(|end| end.invocation.clone());
        runner.invocation = runner.invocation.take().or(recorded);
        if let Some(invocation) = &runner.invocation {
            self.last_ended.insert(runner.slot, invocation.clone());
        }
        self.learn(&runner, verdict, end.as_ref(), now, random);
        self.remember_job(&runner, now);
        // GitHub removes a runner after its job. After a job that was cut short it may not.
        let result = runner.result(verdict, end.as_ref());
        let is_removed = runner.job.is_some()
            && verdict == Verdict::JobDone
            && !result.is_some_and(JobResult::is_cut_short);
        // A claimed registration may be another host's. If it is left, a list shows it as a stray.
        let is_certain = !is_removed && !runner.is_claimed;
        let orphan = runner.registration.clone().filter(|_| is_certain);
        Ended {
            slot: self.slot_id(runner.slot),
            runner,
            verdict,
            result,
            end,
            orphan,
        }
    }

    /// Remembers a runner whose job GitHub may still tell as waiting.
    fn remember_job(&mut self, runner: &Runner, now: Timestamp) {
        let is_old = |runner: &Runner| now.since(runner.since) >= JOIN_TIME;
        self.done.retain(|runner| !is_old(runner));
        if runner.phase != Phase::Busy || is_old(runner) || !self.spec.demand.follows_jobs() {
            return;
        }
        if self.done.len() >= MAX_DONE {
            self.done.pop_front();
        }
        self.done.push_back(runner.clone());
    }

    /// Adjusts the backoffs to a verdict.
    fn learn(
        &mut self,
        runner: &Runner,
        verdict: Verdict,
        end: Option<&EndRecord>,
        now: Timestamp,
        random: u32,
    ) {
        let slot = runner.slot;
        let reason = reason(&self.slot_id(slot), verdict, end);
        let backoffs = &mut self.backoffs;
        match verdict {
            Verdict::BootFailed
            | Verdict::BootTimeout
            | Verdict::SpareLost
            | Verdict::AddressLost => {
                self.boot_failed_at.insert(slot, now);
                backoffs.fail(FailureKind::Boot, reason, None, now, random);
            }
            Verdict::VersionRefused => {
                backoffs.fail(FailureKind::Version, reason, None, now, random);
            }
            Verdict::IdleExpired
            | Verdict::RegistrationTimeout
            | Verdict::RegistrationRefused
            | Verdict::RegistrationDeleted
            | Verdict::SessionConflict
            | Verdict::GithubUnreachable
            | Verdict::UpdateRequested
            | Verdict::ListenerAborted
            | Verdict::Ghost => {
                // A runner that listened for a while shows that registrations work.
                if runner.phase == Phase::Idle && now.since(runner.since) >= ACCEPTED_AFTER {
                    backoffs.succeed(FailureKind::Expired);
                }
                backoffs.fail(FailureKind::Expired, reason, None, now, random);
            }
            // Root's programs failed before they recorded anything, for example because a file is missing.
            Verdict::Unexplained if runner.phase == Phase::Booting => {
                self.boot_failed_at.insert(slot, now);
                backoffs.fail(FailureKind::Boot, reason, None, now, random);
            }
            Verdict::Crashed | Verdict::Unexplained | Verdict::Oom | Verdict::Stopped => {
                if runner.may_be_registered() {
                    backoffs.fail(FailureKind::Expired, reason, None, now, random);
                }
            }
            Verdict::JobDone => {
                backoffs.succeed(FailureKind::Expired);
                backoffs.succeed(FailureKind::Version);
            }
            Verdict::JobTimeout
            | Verdict::Drained
            | Verdict::SpareAged
            | Verdict::IdleAged
            | Verdict::Rolled
            | Verdict::ScaledDown
            | Verdict::Removed
            | Verdict::HostRestart => {}
        }
    }
}

/// Returns the reason of a backoff: the end of a runner, with its last line and the advice.
fn reason(slot: &SlotId, verdict: Verdict, end: Option<&EndRecord>) -> String {
    let exit = end.map_or_else(
        || "it left no record of its end".to_owned(),
        |end| match &end.exit {
            Exit::Status(status) => format!("it exited with status {status}"),
            Exit::Signal(signal) => format!("signal {signal} ended it"),
            Exit::Unknown => format!("it ended with {}", end.service_result),
        },
    );
    let line = end.and_then(|end| end.last_line.as_ref());
    let line = line.map(|line| format!("it wrote \"{line}\""));
    let remedy = verdict.remedy(slot);
    let parts = [Some(format!("{slot} {verdict}: {exit}")), line, remedy];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
