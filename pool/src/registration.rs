//! Changes of a pool by GitHub's answers: mints, deregistrations and lists.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff::FailureKind;
use super::names::{RunnerName, Slot};
use super::observation::{Deleted, ListedRunner, RunnerId};
use super::runner::{Call, Cause, Phase, Registration, Runner};
use super::state::{ACCEPTED_AFTER, Pool};
use super::time::Timestamp;

/// Age of a registration from which a list should have it. GitHub's list is eventually consistent.
const LIST_GRACE: Duration = Duration::from_secs(30);

/// Result of a mint and the delivery of its JIT config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MintOutcome {
    /// The container has its config.
    Delivered {
        /// GitHub's id of the runner.
        id: RunnerId,
    },
    /// The runner is registered, and the container did not take the config.
    Undelivered {
        /// GitHub's id of the runner.
        id: RunnerId,
    },
    /// The mint failed.
    Failed {
        /// Kind of failure, one of [`FailureKind::MINTING`].
        failure: FailureKind,
        /// Reason, for the operator.
        reason: String,
        /// Delay that GitHub requested.
        retry_after: Option<Duration>,
        /// True if GitHub may have registered the runner although no good answer came.
        is_ambiguous: bool,
    },
}

impl Pool {
    /// Remembers the name of a mint before it is sent, so that a list that has it is understood.
    pub fn name_mint(&mut self, slot: Slot, name: RunnerName) {
        if let Some(runner) = self.runners.get_mut(&slot) {
            runner.registration = Some(Registration { id: None, name });
        }
    }

    /// Applies the result of a mint. Returns the id of a registration that has no runner.
    pub fn mint_answered(
        &mut self,
        slot: Slot,
        name: &RunnerName,
        outcome: MintOutcome,
        now: Timestamp,
        random: u32,
    ) -> Option<RunnerId> {
        self.unanswered.remove(&(slot, Call::Mint));
        match &outcome {
            MintOutcome::Delivered { .. } | MintOutcome::Undelivered { .. } => {
                // The delivery used up the connection, even if another runner made the request.
                self.waiting.remove(&slot);
                for failure in FailureKind::MINTING {
                    self.backoffs.succeed(failure);
                }
            }
            MintOutcome::Failed {
                failure,
                reason,
                retry_after,
                ..
            } => {
                self.backoffs
                    .fail(*failure, reason.clone(), *retry_after, now, random);
            }
        }
        // The runner may have ended meanwhile, and another may be in its slot.
        let runner = self.runners.get_mut(&slot);
        let Some(runner) = runner.filter(|runner| runner.name() == Some(name)) else {
            return match outcome {
                MintOutcome::Delivered { id } | MintOutcome::Undelivered { id } => Some(id),
                MintOutcome::Failed { .. } => None,
            };
        };
        runner.pending = None;
        let is_minting = runner.phase == Phase::Minting;
        match outcome {
            MintOutcome::Delivered { id } => {
                runner.registration = Some(Registration {
                    id: Some(id),
                    name: name.clone(),
                });
                if is_minting {
                    let next = if runner.job.is_some() {
                        Phase::Busy
                    } else {
                        Phase::Registering
                    };
                    runner.enter(next, now);
                } else if let Phase::Retiring {
                    deregister_first,
                    end_requested_at: None,
                    cause,
                } = &mut runner.phase
                {
                    // The plan retired it before the registration was known.
                    *deregister_first = !cause.may_end_a_job();
                }
                None
            }
            MintOutcome::Undelivered { id } => {
                runner.registration = None;
                if is_minting {
                    runner.retire(Cause::SpareLost, now);
                }
                Some(id)
            }
            MintOutcome::Failed { .. } => {
                runner.registration = None;
                if is_minting && self.waiting.contains(&slot) {
                    // The failure did not touch the container.
                    runner.enter(Phase::Spare, now);
                } else if is_minting {
                    // The container dropped its request meanwhile, and can never get a config.
                    runner.retire(Cause::SpareLost, now);
                }
                None
            }
        }
    }

    /// Applies the answer to the deregistration of a retiring runner.
    pub fn deregistration_answered(
        &mut self,
        slot: Slot,
        id: RunnerId,
        result: Result<Deleted, Option<Duration>>,
        now: Timestamp,
        random: u32,
    ) {
        self.unanswered.remove(&(slot, Call::Deregister));
        let is_own = |runner: &&mut Runner| runner.id() == Some(id);
        let Some(runner) = self.runners.get_mut(&slot).filter(is_own) else {
            return;
        };
        runner.pending = None;
        let Phase::Retiring {
            deregister_first, ..
        } = &mut runner.phase
        else {
            return;
        };
        match result {
            Ok(Deleted::Gone) => {
                *deregister_first = false;
                // The name stays for the verdict, and for a list that is older than the answer.
                if let Some(registration) = &mut runner.registration {
                    registration.id = None;
                }
                runner.attempts = 0;
                runner.retry_at = None;
            }
            // It got a job meanwhile. GitHub arbitrates, and the job wins.
            Ok(Deleted::Busy) => runner.become_busy(None, now),
            Err(retry_after) => runner.delay(retry_after, now, random),
        }
    }

    /// Applies GitHub's whole list, which was requested at `requested_at`.
    ///
    /// `by_name` has the list's entries by name, and `by_slot` the most likely one for each slot.
    pub fn listed(
        &mut self,
        by_name: &BTreeMap<&str, &ListedRunner>,
        by_slot: &BTreeMap<Slot, (RunnerName, RunnerId)>,
        requested_at: Timestamp,
        now: Timestamp,
    ) {
        let mut is_accepted = false;
        for runner in self.runners.values_mut() {
            // A list that was requested before a change says nothing about it.
            if runner.pending.is_some() || runner.since >= requested_at {
                continue;
            }
            let may_listen = match &runner.phase {
                Phase::Registering => true,
                Phase::Retiring {
                    deregister_first, ..
                } => *deregister_first,
                Phase::Booting | Phase::Spare | Phase::Minting | Phase::Idle | Phase::Busy => false,
            };
            // It was adopted during its mint. The slot in the name tells that the entry is its own.
            if runner.id().is_none()
                && may_listen
                && let Some((name, id)) = by_slot.get(&runner.slot)
            {
                runner.registration = Some(Registration {
                    id: Some(*id),
                    name: name.clone(),
                });
            }
            let name = runner.name().map(ToString::to_string);
            let listed = name.and_then(|name| by_name.get(name.as_str()));
            is_accepted |= runner.phase == Phase::Idle
                && listed.is_some_and(|listed| listed.online)
                && requested_at.since(runner.since) >= ACCEPTED_AFTER;
            match (&runner.phase, listed) {
                (Phase::Registering | Phase::Idle, Some(listed)) if listed.busy => {
                    runner.become_busy(None, now);
                    is_accepted = true;
                }
                (Phase::Registering, Some(listed)) if listed.online => {
                    runner.missed_lists = 0;
                    runner.offline_lists = 0;
                    runner.enter(Phase::Idle, now);
                }
                (Phase::Registering | Phase::Idle, Some(listed)) => {
                    runner.missed_lists = 0;
                    runner.offline_at = (!listed.online).then_some(requested_at);
                    runner.offline_lists = if listed.online {
                        0
                    } else {
                        runner.offline_lists.saturating_add(1)
                    };
                }
                (Phase::Registering | Phase::Idle | Phase::Retiring { .. }, None)
                    if requested_at.since(runner.since) >= LIST_GRACE =>
                {
                    runner.missed_lists = runner.missed_lists.saturating_add(1);
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
        if is_accepted {
            self.backoffs.succeed(FailureKind::Version);
        }
    }
}
