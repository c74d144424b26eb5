//! What is known of one pool, and how each thing that is seen or done changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::backoff::{Backoffs, FailureKind};
use super::names::{Slot, SlotId};
use super::observation::{EndRecord, Exit, Invocation, JobNote, UnitObservation, UnitState};
use super::plan::{Ending, Step};
use super::runner::{Cause, Ended, Job, Phase, Runner, Verdict};
use super::spec::Spec;
use super::time::Timestamp;

/// Who listens for this long was accepted by GitHub, its version included.
pub(super) const LISTENED_LONG: Duration = Duration::from_mins(2);

/// What is known of one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// What it is wanted to be.
    pub spec: Spec,
    /// Who is in which slot. A slot that is absent is vacant.
    pub runners: BTreeMap<Slot, Runner>,
    /// What keeps failing.
    pub backoffs: Backoffs,
    /// How many registrations may be made now, whatever is wanted.
    pub may_register: usize,
    /// Slots in which root of a container waits for its config. Kept apart from the lives: the
    /// question stands, whatever becomes of what is known of who asks it.
    pub(super) waiting: BTreeSet<Slot>,
    /// Slots for which a config is being minted. It goes to whoever waits in the slot when it comes,
    /// so nobody else is started there before.
    pub(super) minting: BTreeSet<Slot>,
    /// When each slot's unit was last called, heard of or over: a look from before knows less.
    heard: BTreeMap<Slot, Timestamp>,
    /// The start that last ended in each slot: a late word of it is not about the next one.
    ended: BTreeMap<Slot, Invocation>,
    /// When a boot last failed in each slot, so that a broken slot does not starve a good one.
    pub(super) boot_failed: BTreeMap<Slot, Timestamp>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self {
            spec,
            runners: BTreeMap::new(),
            backoffs: Backoffs::default(),
            may_register: usize::MAX,
            waiting: BTreeSet::new(),
            minting: BTreeSet::new(),
            heard: BTreeMap::new(),
            ended: BTreeMap::new(),
            boot_failed: BTreeMap::new(),
        }
    }

    /// A slot's full name.
    #[must_use]
    pub fn slot_id(&self, slot: Slot) -> SlotId {
        SlotId {
            pool: self.spec.name.clone(),
            slot,
        }
    }

    /// Lives in a phase.
    #[must_use]
    pub fn count(&self, is: impl Fn(&Phase) -> bool) -> usize {
        self.runners
            .values()
            .filter(|runner| is(&runner.phase))
            .count()
    }

    /// Marks a step as under way. [`Step::Retire`] is done by this alone.
    pub fn begin(&mut self, step: &Step, now: Timestamp) {
        if let Step::Start { slot } = step {
            let mut runner = Runner::new(*slot, Phase::Booting, now);
            runner.generation = Some(self.spec.generation.clone());
            runner.pending = true;
            self.runners.insert(*slot, runner);
            // Its sockets are made anew for it.
            self.waiting.remove(slot);
            self.heard.insert(*slot, now);
            return;
        }
        let Some(runner) = self.runners.get_mut(&step.slot()) else {
            return;
        };
        match step {
            Step::Start { .. } => {}
            Step::Register { .. } => {
                runner.enter(Phase::Minting, now);
                runner.pending = true;
                self.minting.insert(step.slot());
            }
            Step::Retire { cause, .. } => retire(runner, *cause, now),
            Step::Deregister { .. } => runner.pending = true,
            Step::End { .. } => {
                runner.pending = true;
                if let Phase::Retiring { end_asked, .. } = &mut runner.phase {
                    *end_asked = Some(now);
                }
            }
        }
    }

    /// A start call was answered.
    pub fn started(&mut self, slot: Slot, result: Result<(), String>, now: Timestamp, random: u32) {
        // Only a look from now on must show the unit, or the job that will start it.
        self.heard.insert(slot, now);
        let Some(runner) = self.runners.get_mut(&slot) else {
            return;
        };
        runner.pending = false;
        if let Err(reason) = result {
            // The unit may run all the same, if only the answer was lost: then its sight brings
            // the life back.
            if runner.invocation.is_none() {
                self.runners.remove(&slot);
            }
            self.boot_failed.insert(slot, now);
            self.backoffs
                .fail(FailureKind::Boot, reason, None, now, random);
        }
    }

    /// A stop or kill call was answered. That the unit is gone arrives as a sight.
    pub fn end_asked(
        &mut self,
        slot: Slot,
        result: Result<(), String>,
        now: Timestamp,
        random: u32,
    ) {
        let Some(runner) = self.runners.get_mut(&slot) else {
            return;
        };
        runner.pending = false;
        if result.is_err() {
            wait(runner, None, now, random);
            if let Phase::Retiring { end_asked, .. } = &mut runner.phase {
                *end_asked = None;
            }
        }
    }

    /// Root of the slot's container waits for its config.
    pub fn asked(&mut self, slot: Slot, now: Timestamp) {
        self.waiting.insert(slot);
        if let Some(runner) = self.runners.get_mut(&slot) {
            // Adopted as if it had been answered, and here it asks: it was not.
            let unanswered = runner
                .registration
                .as_ref()
                .is_none_or(|registration| registration.id.is_none());
            if runner.phase == Phase::Registering && unanswered {
                runner.registration = None;
                runner.enter(Phase::Booting, now);
            }
            self.settle_boot(slot, now);
        }
    }

    /// The waiting connection went away.
    pub fn hung_up(&mut self, slot: Slot, now: Timestamp) {
        self.waiting.remove(&slot);
        let Some(runner) = self.runners.get_mut(&slot) else {
            return;
        };
        // While a config is minted, the delivery itself will tell.
        if runner.phase == Phase::Spare {
            retire(runner, Cause::SpareLost, now);
        }
    }

    /// The slot's job says that it started.
    pub fn job_started(&mut self, slot: Slot, note: JobNote, now: Timestamp) {
        let Some(runner) = self.runners.get_mut(&slot) else {
            return;
        };
        match &runner.phase {
            // No config, no job: whatever said so lies.
            Phase::Booting | Phase::Spare => {}
            // The answer is out, and its own report is still on its way.
            Phase::Minting => runner.job = Some(Job { note, since: now }),
            Phase::Registering | Phase::Idle => become_busy(runner, Some(note), now),
            Phase::Busy => {
                if let Some(job) = &mut runner.job {
                    job.note = note;
                }
            }
            Phase::Retiring { .. } => {
                runner.job.get_or_insert(Job { note, since: now });
            }
        }
    }

    /// Folds in a unit's state. Returns the life if it is over.
    pub fn unit(
        &mut self,
        observation: UnitObservation,
        now: Timestamp,
        random: u32,
    ) -> Option<Ended> {
        let slot = observation.slot.slot;
        self.heard.insert(slot, now);
        match observation.state {
            UnitState::Activating | UnitState::Active => self.alive(observation, now, random),
            UnitState::Deactivating => None,
            UnitState::Inactive | UnitState::Failed => {
                let runner = self.runners.get(&slot)?;
                let about = observation
                    .invocation
                    .as_ref()
                    .or(observation.end.as_ref().map(|end| &end.invocation));
                let stale = match (&runner.invocation, about) {
                    (Some(known), Some(about)) => known != about,
                    // Not seen alive yet: only an end that is newer than its start can be its own.
                    (None, Some(about)) => {
                        let before = observation
                            .end
                            .as_ref()
                            .is_some_and(|end| end.at < runner.started_at);
                        before || self.ended.get(&slot) == Some(about)
                    }
                    // No unit and no record. Of a life that was never seen alive it says nothing.
                    (known, None) => known.is_none(),
                };
                if stale {
                    None
                } else {
                    self.close(slot, observation.end, now, random)
                }
            }
        }
    }

    /// True if a look that began at `began` may be older than what is known of a slot's unit.
    #[must_use]
    pub fn knows_better(&self, slot: Slot, began: Timestamp) -> bool {
        self.heard.get(&slot).is_some_and(|heard| *heard >= began)
    }

    /// A whole look found no unit for this slot, nor one that is about to start.
    pub fn absent(
        &mut self,
        slot: Slot,
        end: Option<EndRecord>,
        now: Timestamp,
        random: u32,
    ) -> Option<Ended> {
        let runner = self.runners.get(&slot)?;
        if runner.pending {
            return None;
        }
        let own = |end: &EndRecord| match &runner.invocation {
            Some(known) => *known == end.invocation,
            None => end.at >= runner.started_at && self.ended.get(&slot) != Some(&end.invocation),
        };
        let end = end.filter(own);
        self.heard.insert(slot, now);
        self.close(slot, end, now, random)
    }

    fn alive(
        &mut self,
        observation: UnitObservation,
        now: Timestamp,
        random: u32,
    ) -> Option<Ended> {
        let slot = observation.slot.slot;
        if observation.invocation.is_some()
            && self.ended.get(&slot) == observation.invocation.as_ref()
        {
            // No invocation comes back.
            return None;
        }
        let known = self.runners.get(&slot).is_some_and(|runner| {
            match (&runner.invocation, &observation.invocation) {
                (Some(known), Some(seen)) => known == seen,
                (None, _) | (_, None) => true,
            }
        });
        if !known {
            // A unit that we did not start, or that somebody started again. What was here before is
            // over, and may have had a job as this one may: it is taken in as a new daemon would.
            let closed = self.close(slot, None, now, random);
            let asked = self.waiting.contains(&slot);
            self.adopt(observation, None, asked, now);
            return closed;
        }
        let runner = self.runners.get_mut(&slot)?;
        runner.invocation = observation.invocation.or(runner.invocation.take());
        if let Some(start) = observation.start {
            runner.generation = Some(start.generation);
            runner.started_at = runner.started_at.min(start.at);
        }
        runner.active = observation.state == UnitState::Active;
        self.settle_boot(slot, now);
        None
    }

    fn settle_boot(&mut self, slot: Slot, now: Timestamp) {
        if let Some(runner) = self.runners.get_mut(&slot)
            && runner.phase == Phase::Booting
            && runner.active
            && self.waiting.contains(&slot)
        {
            runner.enter(Phase::Spare, now);
            self.backoffs.succeed(FailureKind::Boot);
            self.boot_failed.remove(&slot);
        }
    }

    pub(super) fn close(
        &mut self,
        slot: Slot,
        end: Option<EndRecord>,
        now: Timestamp,
        random: u32,
    ) -> Option<Ended> {
        let runner = self.runners.remove(&slot)?;
        if let Some(invocation) = runner
            .invocation
            .as_ref()
            .or(end.as_ref().map(|end| &end.invocation))
        {
            self.ended.insert(slot, invocation.clone());
        }
        let verdict = runner.judge(end.as_ref());
        let told = end.as_ref().map_or_else(
            || "no record of its end".to_owned(),
            |end| match &end.exit {
                Exit::Status(status) => format!("it exited with status {status}"),
                Exit::Signal(signal) => format!("signal {signal} ended it"),
                Exit::Unknown => format!("it ended with {}", end.service_result),
            },
        );
        let reason = format!("{} {verdict}: {told}", self.slot_id(slot));
        match verdict {
            Verdict::BootFailed | Verdict::BootTimeout | Verdict::SpareLost => {
                self.boot_failed.insert(slot, now);
                self.backoffs
                    .fail(FailureKind::Boot, reason, None, now, random);
            }
            // Nothing will be accepted before the runner in the image is newer.
            Verdict::VersionRefused => {
                let wait = Some(Duration::from_mins(10));
                let reason = format!(
                    "GitHub refuses this version of the runner; put a newer one into the image ({reason})"
                );
                self.backoffs
                    .fail(FailureKind::Version, reason, wait, now, random);
            }
            Verdict::IdleExpired | Verdict::RegistrationTimeout | Verdict::Ghost => {
                // One that listened for a while shows that registering works.
                if runner.phase == Phase::Idle && now.since(runner.since) >= LISTENED_LONG {
                    self.backoffs.succeed(FailureKind::Expired);
                }
                self.backoffs
                    .fail(FailureKind::Expired, reason, None, now, random);
            }
            Verdict::Crashed | Verdict::Unexplained | Verdict::Oom => {
                if runner.may_be_registered() {
                    self.backoffs
                        .fail(FailureKind::Expired, reason, None, now, random);
                }
            }
            Verdict::JobDone => {
                self.backoffs.succeed(FailureKind::Expired);
                self.backoffs.succeed(FailureKind::Version);
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
        // A runner that ran its job is removed by GitHub. Whether one that we cut short was, is not
        // known.
        let ran = runner.job.is_some() && verdict == Verdict::JobDone;
        let orphan = runner.registration.clone().filter(|_| !ran);
        Some(Ended {
            runner,
            verdict,
            end,
            orphan,
        })
    }
}

/// What a step of the plan asks for when it ends a life; used by the plan and by `begin`.
pub(super) fn retire(runner: &mut Runner, cause: Cause, now: Timestamp) {
    let registered =
        runner.may_be_registered() || matches!(runner.phase, Phase::Registering | Phase::Idle);
    let deregister_first = registered && !cause.may_end_a_job();
    runner.enter(
        Phase::Retiring {
            cause,
            deregister_first,
            end_asked: None,
        },
        now,
    );
}

pub(super) fn become_busy(runner: &mut Runner, note: Option<JobNote>, now: Timestamp) {
    let job = runner.job.get_or_insert_with(|| Job {
        note: JobNote::default(),
        since: now,
    });
    if let Some(note) = note {
        job.note = note;
    }
    let since = job.since;
    runner.enter(Phase::Busy, since);
}

pub(super) fn wait(runner: &mut Runner, asked: Option<Duration>, now: Timestamp, random: u32) {
    runner.attempts = runner.attempts.saturating_add(1);
    runner.retry_at =
        Some(now + super::backoff::delay(runner.attempts, random).max(asked.unwrap_or_default()));
}

impl Runner {
    /// How its unit is to be ended: a job is told, so that GitHub hears "cancelled" at once.
    #[must_use]
    pub fn ending(&self, now: Timestamp, stop: Duration) -> Ending {
        let overdue = now.since(self.since) >= stop;
        if self.job.is_some() && !overdue {
            Ending::Stop
        } else {
            Ending::Kill
        }
    }
}
