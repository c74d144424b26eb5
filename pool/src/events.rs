//! Changes of a pool by the steps that begin and by the events that arrive.

use super::adopt::ConfigState;
use super::backoff::FailureKind;
use super::names::Slot;
use super::observation::{EndRecord, JobNote, UnitObservation, UnitState};
use super::runner::{Call, Cause, Ended, Job, Phase, Runner};
use super::state::Pool;
use super::step::Step;
use super::time::Timestamp;

impl Pool {
    /// Marks a step as under way. This alone completes [`Step::Retire`].
    pub fn begin(&mut self, step: &Step, now: Timestamp) {
        if let Step::Start { slot } = step {
            let mut runner = Runner::new(*slot, Phase::Booting, now);
            runner.generation = Some(self.spec.generation.clone());
            runner.pending = Some(Call::Start);
            self.unanswered.insert((*slot, Call::Start));
            self.runners.insert(*slot, runner);
            // The step makes new sockets for the runner.
            self.waiting.remove(slot);
            self.observed_at.insert(*slot, now);
            return;
        }
        let Some(runner) = self.runners.get_mut(&step.slot()) else {
            return;
        };
        match step {
            Step::Start { .. } => {}
            Step::Register { .. } => {
                runner.enter(Phase::Minting, now);
                runner.pending = Some(Call::Mint);
                self.unanswered.insert((step.slot(), Call::Mint));
            }
            Step::Retire { cause, .. } => runner.retire(*cause, now),
            Step::Deregister { .. } | Step::Find { .. } => {
                runner.pending = Some(Call::Deregister);
                self.unanswered.insert((step.slot(), Call::Deregister));
            }
            Step::End { .. } => {
                runner.pending = Some(Call::End);
                self.unanswered.insert((step.slot(), Call::End));
                if let Phase::Retiring {
                    end_requested_at, ..
                } = &mut runner.phase
                {
                    *end_requested_at = Some(now);
                }
            }
        }
    }

    /// Applies the answer to a start call.
    pub fn start_answered(
        &mut self,
        slot: Slot,
        result: Result<(), String>,
        now: Timestamp,
        random: u32,
    ) {
        // Only an observation that begins from now on must show the unit, or the job that starts it.
        self.observed_at.insert(slot, now);
        self.unanswered.remove(&(slot, Call::Start));
        let is_own = |runner: &&mut Runner| runner.pending == Some(Call::Start);
        let Some(runner) = self.runners.get_mut(&slot).filter(is_own) else {
            return;
        };
        runner.pending = None;
        if let Err(reason) = result {
            // The unit may run although the answer was lost. Then its observation adopts the runner.
            if runner.invocation.is_none() {
                self.runners.remove(&slot);
            }
            self.boot_failed_at.insert(slot, now);
            self.backoffs
                .fail(FailureKind::Boot, reason, None, now, random);
        }
    }

    /// Applies the answer to a stop or kill call. The end of the unit arrives as an observation.
    pub fn end_answered(
        &mut self,
        slot: Slot,
        result: Result<(), String>,
        now: Timestamp,
        random: u32,
    ) {
        self.unanswered.remove(&(slot, Call::End));
        let is_own = |runner: &&mut Runner| runner.pending == Some(Call::End);
        let Some(runner) = self.runners.get_mut(&slot).filter(is_own) else {
            return;
        };
        runner.pending = None;
        if result.is_err() {
            if let Phase::Retiring {
                end_requested_at, ..
            } = &mut runner.phase
            {
                *end_requested_at = None;
            }
            runner.delay(None, now, random);
        }
    }

    /// Applies a request of the slot's container for its JIT config.
    pub fn config_requested(&mut self, slot: Slot, now: Timestamp) {
        self.waiting.insert(slot);
        if let Some(runner) = self.runners.get_mut(&slot) {
            // It was adopted as if it had its config. The request shows that it has none, and that a claimed
            // registration is not its own.
            let is_adopted = match runner.phase {
                Phase::Registering => runner.id().is_none() || runner.is_claimed,
                Phase::Idle => runner.is_claimed,
                Phase::Booting
                | Phase::Spare
                | Phase::Minting
                | Phase::Busy
                | Phase::Retiring { .. } => false,
            };
            if runner.phase == Phase::Booting && runner.asked_at.is_none() {
                runner.asked_at = Some(now);
            }
            if is_adopted {
                (runner.registration, runner.is_claimed) = (None, false);
                runner.enter(Phase::Booting, now);
            }
            self.settle_boot(slot, now);
        }
    }

    /// Applies the loss of the connection that waited for a JIT config.
    pub fn request_dropped(&mut self, slot: Slot, now: Timestamp) {
        self.waiting.remove(&slot);
        let Some(runner) = self.runners.get_mut(&slot) else {
            return;
        };
        // During a mint the delivery shows the loss.
        if runner.phase == Phase::Spare {
            runner.retire(Cause::SpareLost, now);
        }
    }

    /// Applies the job-started report of the slot's job.
    pub fn job_started(&mut self, slot: Slot, note: JobNote, now: Timestamp) {
        let Some(runner) = self.runners.get_mut(&slot) else {
            return;
        };
        let was_claimed = runner.may_lack_its_job();
        runner.is_job_reported = !matches!(runner.phase, Phase::Booting | Phase::Spare);
        match &runner.phase {
            // The report is false, because a runner without a config has no job.
            Phase::Booting | Phase::Spare => {}
            // The config is delivered, and the answer to the mint is on its way.
            Phase::Minting => runner.job = Some(Job { note, since: now }),
            Phase::Registering | Phase::Idle => {
                runner.become_busy(Some(note), now);
                // GitHub gives jobs only to versions that it accepts.
                self.backoffs.succeed(FailureKind::Version);
            }
            Phase::Busy => {
                if was_claimed {
                    // The job that a list showed before may be another one.
                    (runner.job, runner.since) = (Some(Job { note, since: now }), now);
                } else if let Some(job) = &mut runner.job {
                    job.note = note;
                }
            }
            // No deletion of a claimed registration can tell of the job, because none is requested.
            Phase::Retiring {
                deregister_first: true,
                ..
            } if runner.is_claimed => runner.become_busy(Some(note), now),
            Phase::Retiring { .. } => {
                runner.job.get_or_insert(Job { note, since: now });
            }
        }
    }

    /// Applies an observation of a unit. Returns the runner that it shows to have ended.
    pub fn unit_observed(
        &mut self,
        observation: UnitObservation,
        now: Timestamp,
        random: u32,
    ) -> Option<Ended> {
        let slot = observation.slot.slot;
        self.observed_at.insert(slot, now);
        match observation.state {
            UnitState::Activating | UnitState::Active => self.unit_alive(observation, now, random),
            UnitState::Deactivating => None,
            UnitState::Inactive | UnitState::Failed => {
                let runner = self.runners.get(&slot)?;
                let about = observation
                    .invocation
                    .as_ref()
                    .or(observation.end.as_ref().map(|end| &end.invocation));
                let is_stale = match (&runner.invocation, about) {
                    (Some(known), Some(about)) => known != about,
                    // Of a runner that was never seen alive, only an end after its start is its own.
                    (None, Some(about)) => {
                        let is_older = observation
                            .end
                            .as_ref()
                            .is_some_and(|end| end.at < runner.started_at);
                        is_older || self.last_ended.get(&slot) == Some(about)
                    }
                    // Neither a unit nor a record. That proves the end only of a runner that was
                    // seen alive.
                    (known, None) => known.is_none(),
                };
                if is_stale {
                    None
                } else {
                    self.end(slot, observation.end, now, random)
                }
            }
        }
    }

    /// Applies a full reconcile that found neither a unit for the slot nor one that is about to start.
    pub fn unit_missing(
        &mut self,
        slot: Slot,
        end: Option<EndRecord>,
        now: Timestamp,
        random: u32,
    ) -> Option<Ended> {
        let runner = self.runners.get(&slot)?;
        if runner.pending.is_some() {
            return None;
        }
        let is_own = |end: &EndRecord| match &runner.invocation {
            Some(known) => *known == end.invocation,
            None => {
                end.at >= runner.started_at && self.last_ended.get(&slot) != Some(&end.invocation)
            }
        };
        let end = end.filter(is_own);
        self.observed_at.insert(slot, now);
        self.end(slot, end, now, random)
    }

    fn unit_alive(
        &mut self,
        observation: UnitObservation,
        now: Timestamp,
        random: u32,
    ) -> Option<Ended> {
        let slot = observation.slot.slot;
        if observation.invocation.is_some()
            && self.last_ended.get(&slot) == observation.invocation.as_ref()
        {
            // The observation is late, because an invocation does not come back.
            return None;
        }
        let is_known = self.runners.get(&slot).is_some_and(|runner| {
            match (&runner.invocation, &observation.invocation) {
                (Some(known), Some(seen)) => known == seen,
                (None, _) | (_, None) => true,
            }
        });
        if !is_known {
            // The daemon did not start this unit, or something started it again. The runner that was
            // here has ended, and this one may have a job: it is adopted as after a restart.
            let ended = self.end(slot, None, now, random);
            let config = if self.waiting.contains(&slot) {
                ConfigState::Requested
            } else {
                ConfigState::Unknown
            };
            self.adopt(observation, None, config, now);
            return ended;
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

    /// Makes a booting runner a spare once its unit is active and its container waits for a config.
    fn settle_boot(&mut self, slot: Slot, now: Timestamp) {
        if let Some(runner) = self.runners.get_mut(&slot)
            && runner.phase == Phase::Booting
            && runner.active
            && self.waiting.contains(&slot)
        {
            runner.enter(Phase::Spare, now);
            self.backoffs.succeed(FailureKind::Boot);
            self.boot_failed_at.remove(&slot);
        }
    }
}
