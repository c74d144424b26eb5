//! What is known of one pool, and how each thing that is seen or done changes it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff::{Backoffs, Trouble};
use super::life::{Cause, Closed, Job, Life, Phase, Runner, Verdict};
use super::names::{RunnerName, Slot, SlotId};
use super::plan::{Ending, Step};
use super::sight::{
    Deleted, Exit, Invocation, JobNote, Registration, RunnerId, UnitSight, UnitState,
};
use super::spec::Spec;
use super::time::Timestamp;

/// A registered runner that is missing from a list for less than this is not missed: GitHub's list
/// is eventually consistent.
const LIST_GRACE: Duration = Duration::from_secs(30);

/// Who listens for this long was accepted by GitHub, its version included.
const LISTENED_LONG: Duration = Duration::from_mins(2);

/// A life that was not seen alive yet is missing from a look for less than this: systemd takes a
/// start call and lists the unit as inactive until its turn comes.
const START_GRACE: Duration = Duration::from_secs(5);

/// How handing a config to a spare went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MintOutcome {
    /// Minted and delivered.
    Delivered {
        /// GitHub's id.
        id: RunnerId,
    },
    /// Minted, but the container did not take it.
    Undelivered {
        /// GitHub's id.
        id: RunnerId,
    },
    /// Not minted, as far as is known.
    Failed {
        /// For the person who asks why.
        reason: String,
        /// GitHub asked for this wait.
        retry_after: Option<Duration>,
    },
}

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

    /// Takes down the name that is about to be sent, so that a list that has it is understood.
    pub fn minting(&mut self, slot: Slot, name: RunnerName) {
        if let Some(life) = self.lives.get_mut(&slot) {
            life.runner = Some(Runner { id: None, name });
        }
    }

    /// A mint and its delivery ended. Gives back a registration that has no machine.
    pub fn minted(
        &mut self,
        slot: Slot,
        name: &RunnerName,
        outcome: MintOutcome,
        now: Timestamp,
        dice: u32,
    ) -> Option<(RunnerId, RunnerName)> {
        match &outcome {
            MintOutcome::Delivered { .. } | MintOutcome::Undelivered { .. } => {
                self.backoffs.succeed(Trouble::Mint);
            }
            MintOutcome::Failed {
                reason,
                retry_after,
            } => {
                self.backoffs
                    .fail(Trouble::Mint, reason.clone(), *retry_after, now, dice);
            }
        }
        // The life may have ended meanwhile, and another may be in its place.
        let life = self.lives.get_mut(&slot).filter(|life| {
            life.runner
                .as_ref()
                .is_some_and(|runner| runner.name == *name)
        });
        let Some(life) = life else {
            return match outcome {
                MintOutcome::Delivered { id } | MintOutcome::Undelivered { id } => {
                    Some((id, name.clone()))
                }
                MintOutcome::Failed { .. } => None,
            };
        };
        life.pending = false;
        let minting = life.phase == Phase::Minting;
        match outcome {
            MintOutcome::Delivered { id } => {
                life.runner = Some(Runner {
                    id: Some(id),
                    name: name.clone(),
                });
                life.asked = false;
                if minting {
                    let next = if life.job.is_some() {
                        Phase::Busy
                    } else {
                        Phase::Registering
                    };
                    life.enter(next, now);
                } else if let Phase::Retiring {
                    deregister_first,
                    end_asked: None,
                    cause,
                } = &mut life.phase
                {
                    // It was decided to end it before it was known to be registered.
                    *deregister_first = !cause.may_end_a_job();
                }
                None
            }
            MintOutcome::Undelivered { id } => {
                life.runner = None;
                if minting {
                    retire(life, Cause::SpareLost, now);
                }
                Some((id, name.clone()))
            }
            MintOutcome::Failed { .. } => {
                life.runner = None;
                if minting {
                    // It still waits: the container is none the worse for it.
                    life.enter(Phase::Spare, now);
                }
                None
            }
        }
    }

    /// A DELETE before an end was answered.
    pub fn deregistered(
        &mut self,
        slot: Slot,
        id: RunnerId,
        result: Result<Deleted, Option<Duration>>,
        now: Timestamp,
        dice: u32,
    ) {
        let ours = |life: &&mut Life| {
            life.runner
                .as_ref()
                .is_some_and(|runner| runner.id == Some(id))
        };
        let Some(life) = self.lives.get_mut(&slot).filter(ours) else {
            return;
        };
        life.pending = false;
        let Phase::Retiring {
            deregister_first, ..
        } = &mut life.phase
        else {
            return;
        };
        match result {
            Ok(Deleted::Gone) => {
                *deregister_first = false;
                // Its name stays, for its verdict, and for a list that is older than the answer.
                if let Some(runner) = &mut life.runner {
                    runner.id = None;
                }
                life.attempts = 0;
                life.retry_at = None;
            }
            // It just got a job: GitHub arbitrates, and the job wins.
            Ok(Deleted::Busy) => become_busy(life, None, now),
            Err(retry_after) => wait(life, retry_after, now, dice),
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
        if let Some(life) = self.lives.get_mut(&slot) {
            life.asked = true;
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
        let Some(life) = self.lives.get_mut(&slot) else {
            return;
        };
        life.asked = false;
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
        match sight.state {
            UnitState::Activating | UnitState::Active => {
                self.alive(sight, now);
                None
            }
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
                    self.close(slot, sight, now, dice)
                }
            }
        }
    }

    /// A whole look began at `began` and found no unit for these slots.
    pub fn absent(
        &mut self,
        slot: Slot,
        end: Option<super::sight::LifeEnd>,
        began: Timestamp,
        now: Timestamp,
        dice: u32,
    ) -> Option<Closed> {
        let life = self.lives.get(&slot)?;
        if life.pending || life.born >= began {
            return None;
        }
        let own = |end: &super::sight::LifeEnd| match &life.invocation {
            Some(known) => *known == end.invocation,
            None => end.at >= life.born && self.ended.get(&slot) != Some(&end.invocation),
        };
        let end = end.filter(own);
        let unseen = life.invocation.is_none() && end.is_none();
        if unseen && began.since(life.born) < START_GRACE {
            return None;
        }
        let sight = UnitSight {
            slot: self.slot_id(slot),
            state: UnitState::Inactive,
            invocation: None,
            start: None,
            end,
        };
        self.close(slot, sight, now, dice)
    }

    fn alive(&mut self, sight: UnitSight, now: Timestamp) {
        let slot = sight.slot.slot;
        if sight.invocation.is_some() && self.ended.get(&slot) == sight.invocation.as_ref() {
            // A look from before its end, told after it. No invocation comes back.
            return;
        }
        let known =
            self.lives
                .get(&slot)
                .is_some_and(|life| match (&life.invocation, &sight.invocation) {
                    (Some(known), Some(seen)) => known == seen,
                    (None, _) | (_, None) => true,
                });
        if !known || !self.lives.contains_key(&slot) {
            // A unit that we did not start, or that somebody started again.
            let mut life = Life::new(slot, Phase::Booting, now);
            life.asked = self.lives.get(&slot).is_some_and(|old| old.asked);
            self.lives.insert(slot, life);
        }
        let Some(life) = self.lives.get_mut(&slot) else {
            return;
        };
        life.invocation = sight.invocation.or(life.invocation.take());
        if let Some(start) = sight.start {
            life.generation = Some(start.generation);
            life.born = life.born.min(start.at);
        }
        life.active = sight.state == UnitState::Active;
        self.settle_boot(slot, now);
    }

    fn settle_boot(&mut self, slot: Slot, now: Timestamp) {
        if let Some(life) = self.lives.get_mut(&slot)
            && life.phase == Phase::Booting
            && life.active
            && life.asked
        {
            life.enter(Phase::Spare, now);
            self.backoffs.succeed(Trouble::Boot);
            self.boot_failed.remove(&slot);
        }
    }

    pub(super) fn close(
        &mut self,
        slot: Slot,
        sight: UnitSight,
        now: Timestamp,
        dice: u32,
    ) -> Option<Closed> {
        let life = self.lives.remove(&slot)?;
        if let Some(invocation) = life
            .invocation
            .as_ref()
            .or(sight.end.as_ref().map(|end| &end.invocation))
        {
            self.ended.insert(slot, invocation.clone());
        }
        let verdict = life.judge(sight.end.as_ref());
        let told = sight.end.as_ref().map_or_else(
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
            end: sight.end,
            orphan,
        })
    }

    /// Folds in GitHub's whole list, asked for at `asked`. Returns the slots it changed.
    pub fn listed(
        &mut self,
        list: &BTreeMap<String, Registration>,
        by_slot: &BTreeMap<Slot, (RunnerName, RunnerId)>,
        asked: Timestamp,
        now: Timestamp,
    ) {
        let mut accepted = false;
        for life in self.lives.values_mut() {
            // Only a list that was asked for after a change can speak of it.
            if life.pending || life.since >= asked {
                continue;
            }
            let nameless = life
                .runner
                .as_ref()
                .is_none_or(|runner| runner.id.is_none());
            let may_listen = match &life.phase {
                Phase::Registering => true,
                Phase::Retiring {
                    deregister_first, ..
                } => *deregister_first,
                Phase::Booting | Phase::Spare | Phase::Minting | Phase::Idle | Phase::Busy => false,
            };
            // Adopted while its mint was under way: the name tells the slot.
            if nameless
                && may_listen
                && let Some((name, id)) = by_slot.get(&life.slot)
            {
                life.runner = Some(Runner {
                    id: Some(*id),
                    name: name.clone(),
                });
            }
            let seen = life
                .runner
                .as_ref()
                .and_then(|runner| list.get(&runner.name.to_string()));
            accepted |= life.phase == Phase::Idle
                && seen.is_some_and(|seen| seen.online)
                && asked.since(life.since) >= LISTENED_LONG;
            match (&life.phase, seen) {
                (Phase::Registering | Phase::Idle, Some(seen)) if seen.busy => {
                    become_busy(life, None, now);
                }
                (Phase::Registering, Some(seen)) if seen.online => {
                    life.missed = 0;
                    life.enter(Phase::Idle, now);
                }
                (Phase::Registering | Phase::Idle, Some(seen)) => {
                    life.missed = 0;
                    life.offline_seen = (!seen.online).then_some(asked);
                }
                (Phase::Registering | Phase::Idle | Phase::Retiring { .. }, None)
                    if asked.since(life.since) >= LIST_GRACE =>
                {
                    life.missed = life.missed.saturating_add(1);
                }
                (
                    Phase::Booting
                    | Phase::Spare
                    | Phase::Minting
                    | Phase::Registering
                    | Phase::Idle
                    | Phase::Busy
                    | Phase::Retiring { .. },
                    _,
                ) => {}
            }
        }
        if accepted {
            self.backoffs.succeed(Trouble::Version);
        }
    }
}

/// What a step of the plan asks for when it ends a life; used by the plan and by `begin`.
fn retire(life: &mut Life, cause: Cause, now: Timestamp) {
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

fn become_busy(life: &mut Life, note: Option<JobNote>, now: Timestamp) {
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

fn wait(life: &mut Life, asked: Option<Duration>, now: Timestamp, dice: u32) {
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
