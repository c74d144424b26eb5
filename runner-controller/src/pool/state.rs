//! What is known of one pool, and how each thing that is seen or done changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::backoff::{Backoffs, Trouble};
use super::life::{Cause, Closed, Job, Life, Phase, Verdict};
use super::names::{Slot, SlotId};
use super::plan::{Ending, Step};
use super::sight::{Exit, Invocation, JobNote, LifeEnd, UnitSight, UnitState};
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
    pub lives: BTreeMap<Slot, Life>,
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
            lives: BTreeMap::new(),
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
        self.lives.values().filter(|life| is(&life.phase)).count()
    }

    /// Marks a step as under way. [`Step::Retire`] is done by this alone.
    pub fn begin(&mut self, step: &Step, now: Timestamp) {
        if let Step::Start { slot } = step {
            let mut life = Life::new(*slot, Phase::Booting, now);
            life.generation = Some(self.spec.generation.clone());
            life.pending = true;
            self.lives.insert(*slot, life);
            // Its sockets are made anew for it.
            self.waiting.remove(slot);
            self.heard.insert(*slot, now);
            return;
        }
        let Some(life) = self.lives.get_mut(&step.slot()) else {
            return;
        };
        match step {
            Step::Start { .. } => {}
            Step::Register { .. } => {
                life.enter(Phase::Minting, now);
                life.pending = true;
                self.minting.insert(step.slot());
            }
            Step::Retire { cause, .. } => retire(life, *cause, now),
            Step::Deregister { .. } => life.pending = true,
            Step::End { .. } => {
                life.pending = true;
                if let Phase::Retiring { end_asked, .. } = &mut life.phase {
                    *end_asked = Some(now);
                }
            }
        }
    }

    /// A start call was answered.
    pub fn started(&mut self, slot: Slot, result: Result<(), String>, now: Timestamp, dice: u32) {
        // Only a look from now on must show the unit, or the job that will start it.
        self.heard.insert(slot, now);
        let Some(life) = self.lives.get_mut(&slot) else {
            return;
        };
        life.pending = false;
        if let Err(reason) = result {
            // The unit may run all the same, if only the answer was lost: then its sight brings
            // the life back.
            if life.invocation.is_none() {
                self.lives.remove(&slot);
            }
            self.boot_failed.insert(slot, now);
            self.backoffs.fail(Trouble::Boot, reason, None, now, dice);
        }
    }

    /// A stop or kill call was answered. That the unit is gone arrives as a sight.
    pub fn end_asked(&mut self, slot: Slot, result: Result<(), String>, now: Timestamp, dice: u32) {
        let Some(life) = self.lives.get_mut(&slot) else {
            return;
        };
        life.pending = false;
        if result.is_err() {
            wait(life, None, now, dice);
            if let Phase::Retiring { end_asked, .. } = &mut life.phase {
                *end_asked = None;
            }
        }
    }

    /// Root of the slot's container waits for its config.
    pub fn asked(&mut self, slot: Slot, now: Timestamp) {
        self.waiting.insert(slot);
        if let Some(life) = self.lives.get_mut(&slot) {
            // Adopted as if it had been answered, and here it asks: it was not.
            let unanswered = life
                .runner
                .as_ref()
                .is_none_or(|runner| runner.id.is_none());
            if life.phase == Phase::Registering && unanswered {
                life.runner = None;
                life.enter(Phase::Booting, now);
            }
            self.settle_boot(slot, now);
        }
    }

    /// The waiting connection went away.
    pub fn hung_up(&mut self, slot: Slot, now: Timestamp) {
        self.waiting.remove(&slot);
        let Some(life) = self.lives.get_mut(&slot) else {
            return;
        };
        // While a config is minted, the delivery itself will tell.
        if life.phase == Phase::Spare {
            retire(life, Cause::SpareLost, now);
        }
    }

    /// The slot's job says that it started.
    pub fn job_started(&mut self, slot: Slot, note: JobNote, now: Timestamp) {
        let Some(life) = self.lives.get_mut(&slot) else {
            return;
        };
        match &life.phase {
            // No config, no job: whatever said so lies.
            Phase::Booting | Phase::Spare => {}
            // The answer is out, and its own report is still on its way.
            Phase::Minting => life.job = Some(Job { note, since: now }),
            Phase::Registering | Phase::Idle => become_busy(life, Some(note), now),
            Phase::Busy => {
                if let Some(job) = &mut life.job {
                    job.note = note;
                }
            }
            Phase::Retiring { .. } => {
                life.job.get_or_insert(Job { note, since: now });
            }
        }
    }

    /// Folds in a unit's state. Returns the life if it is over.
    pub fn unit(&mut self, sight: UnitSight, now: Timestamp, dice: u32) -> Option<Closed> {
        let slot = sight.slot.slot;
        self.heard.insert(slot, now);
        match sight.state {
            UnitState::Activating | UnitState::Active => self.alive(sight, now, dice),
            UnitState::Deactivating => None,
            UnitState::Inactive | UnitState::Failed => {
                let life = self.lives.get(&slot)?;
                let about = sight
                    .invocation
                    .as_ref()
                    .or(sight.end.as_ref().map(|end| &end.invocation));
                let stale = match (&life.invocation, about) {
                    (Some(known), Some(about)) => known != about,
                    // Not seen alive yet: only an end that is newer than its start can be its own.
                    (None, Some(about)) => {
                        let before = sight.end.as_ref().is_some_and(|end| end.at < life.born);
                        before || self.ended.get(&slot) == Some(about)
                    }
                    // No unit and no record. Of a life that was never seen alive it says nothing.
                    (known, None) => known.is_none(),
                };
                if stale {
                    None
                } else {
                    self.close(slot, sight.end, now, dice)
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
        end: Option<LifeEnd>,
        now: Timestamp,
        dice: u32,
    ) -> Option<Closed> {
        let life = self.lives.get(&slot)?;
        if life.pending {
            return None;
        }
        let own = |end: &LifeEnd| match &life.invocation {
            Some(known) => *known == end.invocation,
            None => end.at >= life.born && self.ended.get(&slot) != Some(&end.invocation),
        };
        let end = end.filter(own);
        self.heard.insert(slot, now);
        self.close(slot, end, now, dice)
    }

    fn alive(&mut self, sight: UnitSight, now: Timestamp, dice: u32) -> Option<Closed> {
        let slot = sight.slot.slot;
        if sight.invocation.is_some() && self.ended.get(&slot) == sight.invocation.as_ref() {
            // No invocation comes back.
            return None;
        }
        let known =
            self.lives
                .get(&slot)
                .is_some_and(|life| match (&life.invocation, &sight.invocation) {
                    (Some(known), Some(seen)) => known == seen,
                    (None, _) | (_, None) => true,
                });
        if !known {
            // A unit that we did not start, or that somebody started again. What was here before is
            // over, and may have had a job as this one may: it is taken in as a new daemon would.
            let closed = self.close(slot, None, now, dice);
            let asked = self.waiting.contains(&slot);
            self.adopt(sight, None, asked, now);
            return closed;
        }
        let life = self.lives.get_mut(&slot)?;
        life.invocation = sight.invocation.or(life.invocation.take());
        if let Some(start) = sight.start {
            life.generation = Some(start.generation);
            life.born = life.born.min(start.at);
        }
        life.active = sight.state == UnitState::Active;
        self.settle_boot(slot, now);
        None
    }

    fn settle_boot(&mut self, slot: Slot, now: Timestamp) {
        if let Some(life) = self.lives.get_mut(&slot)
            && life.phase == Phase::Booting
            && life.active
            && self.waiting.contains(&slot)
        {
            life.enter(Phase::Spare, now);
            self.backoffs.succeed(Trouble::Boot);
            self.boot_failed.remove(&slot);
        }
    }

    pub(super) fn close(
        &mut self,
        slot: Slot,
        end: Option<LifeEnd>,
        now: Timestamp,
        dice: u32,
    ) -> Option<Closed> {
        let life = self.lives.remove(&slot)?;
        if let Some(invocation) = life
            .invocation
            .as_ref()
            .or(end.as_ref().map(|end| &end.invocation))
        {
            self.ended.insert(slot, invocation.clone());
        }
        let verdict = life.judge(end.as_ref());
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
                self.backoffs.fail(Trouble::Boot, reason, None, now, dice);
            }
            // Nothing will be accepted before the runner in the image is newer.
            Verdict::VersionRefused => {
                let wait = Some(Duration::from_mins(10));
                let reason = format!(
                    "GitHub refuses this version of the runner; put a newer one into the image ({reason})"
                );
                self.backoffs
                    .fail(Trouble::Version, reason, wait, now, dice);
            }
            Verdict::IdleExpired | Verdict::RegistrationTimeout | Verdict::Ghost => {
                // One that listened for a while shows that registering works.
                if life.phase == Phase::Idle && now.since(life.since) >= LISTENED_LONG {
                    self.backoffs.succeed(Trouble::Expired);
                }
                self.backoffs
                    .fail(Trouble::Expired, reason, None, now, dice);
            }
            Verdict::Crashed | Verdict::Unexplained | Verdict::Oom => {
                if life.may_be_registered() {
                    self.backoffs
                        .fail(Trouble::Expired, reason, None, now, dice);
                }
            }
            Verdict::JobDone => {
                self.backoffs.succeed(Trouble::Expired);
                self.backoffs.succeed(Trouble::Version);
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
        let ran = life.job.is_some() && verdict == Verdict::JobDone;
        let orphan = life.runner.clone().filter(|_| !ran);
        Some(Closed {
            life,
            verdict,
            end,
            orphan,
        })
    }
}

/// What a step of the plan asks for when it ends a life; used by the plan and by `begin`.
pub(super) fn retire(life: &mut Life, cause: Cause, now: Timestamp) {
    let registered =
        life.may_be_registered() || matches!(life.phase, Phase::Registering | Phase::Idle);
    let deregister_first = registered && !cause.may_end_a_job();
    life.enter(
        Phase::Retiring {
            cause,
            deregister_first,
            end_asked: None,
        },
        now,
    );
}

pub(super) fn become_busy(life: &mut Life, note: Option<JobNote>, now: Timestamp) {
    let job = life.job.get_or_insert_with(|| Job {
        note: JobNote::default(),
        since: now,
    });
    if let Some(note) = note {
        job.note = note;
    }
    let since = job.since;
    life.enter(Phase::Busy, since);
}

pub(super) fn wait(life: &mut Life, asked: Option<Duration>, now: Timestamp, dice: u32) {
    life.attempts = life.attempts.saturating_add(1);
    life.retry_at =
        Some(now + super::backoff::delay(life.attempts, dice).max(asked.unwrap_or_default()));
}

impl Life {
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
