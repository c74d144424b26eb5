//! What GitHub says of a pool's runners: registrations made, taken back and listed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff::FailureKind;
use super::names::{RunnerName, Slot};
use super::observation::{Deleted, ListedRunner, RunnerId};
use super::runner::{Cause, Phase, Registration, Runner};
use super::state::{LISTENED_LONG, Pool, become_busy, retire, wait};
use super::time::Timestamp;

/// A registered runner that is missing from a list for less than this is not missed: GitHub's list
/// is eventually consistent.
const LIST_GRACE: Duration = Duration::from_secs(30);

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
        /// What kind of failure it was, one of [`Trouble::MINTING`].
        failure: FailureKind,
        /// For the person who asks why.
        reason: String,
        /// GitHub asked for this wait.
        retry_after: Option<Duration>,
    },
}

impl Pool {
    /// Takes down the name that is about to be sent, so that a list that has it is understood.
    pub fn minting(&mut self, slot: Slot, name: RunnerName) {
        if let Some(runner) = self.runners.get_mut(&slot) {
            runner.registration = Some(Registration { id: None, name });
        }
    }

    /// A mint and its delivery ended. Gives back a registration that has no machine.
    pub fn minted(
        &mut self,
        slot: Slot,
        name: &RunnerName,
        outcome: MintOutcome,
        now: Timestamp,
        random: u32,
    ) -> Option<(RunnerId, RunnerName)> {
        self.minting.remove(&slot);
        match &outcome {
            MintOutcome::Delivered { .. } | MintOutcome::Undelivered { .. } => {
                // The connection is used up either way, whoever's it was.
                self.waiting.remove(&slot);
                for failure in FailureKind::MINTING {
                    self.backoffs.succeed(failure);
                }
            }
            MintOutcome::Failed {
                failure,
                reason,
                retry_after,
            } => {
                self.backoffs
                    .fail(*failure, reason.clone(), *retry_after, now, random);
            }
        }
        // The life may have ended meanwhile, and another may be in its place.
        let runner = self.runners.get_mut(&slot).filter(|runner| {
            runner
                .registration
                .as_ref()
                .is_some_and(|registration| registration.name == *name)
        });
        let Some(runner) = runner else {
            return match outcome {
                MintOutcome::Delivered { id } | MintOutcome::Undelivered { id } => {
                    Some((id, name.clone()))
                }
                MintOutcome::Failed { .. } => None,
            };
        };
        runner.pending = false;
        let minting = runner.phase == Phase::Minting;
        match outcome {
            MintOutcome::Delivered { id } => {
                runner.registration = Some(Registration {
                    id: Some(id),
                    name: name.clone(),
                });
                if minting {
                    let next = if runner.job.is_some() {
                        Phase::Busy
                    } else {
                        Phase::Registering
                    };
                    runner.enter(next, now);
                } else if let Phase::Retiring {
                    deregister_first,
                    end_asked: None,
                    cause,
                } = &mut runner.phase
                {
                    // It was decided to end it before it was known to be registered.
                    *deregister_first = !cause.may_end_a_job();
                }
                None
            }
            MintOutcome::Undelivered { id } => {
                runner.registration = None;
                if minting {
                    retire(runner, Cause::SpareLost, now);
                }
                Some((id, name.clone()))
            }
            MintOutcome::Failed { .. } => {
                runner.registration = None;
                if minting && self.waiting.contains(&slot) {
                    // The container is none the worse for it.
                    runner.enter(Phase::Spare, now);
                } else if minting {
                    // It hung up meanwhile, and can never be answered.
                    retire(runner, Cause::SpareLost, now);
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
        random: u32,
    ) {
        let ours = |runner: &&mut Runner| {
            runner
                .registration
                .as_ref()
                .is_some_and(|registration| registration.id == Some(id))
        };
        let Some(runner) = self.runners.get_mut(&slot).filter(ours) else {
            return;
        };
        runner.pending = false;
        let Phase::Retiring {
            deregister_first, ..
        } = &mut runner.phase
        else {
            return;
        };
        match result {
            Ok(Deleted::Gone) => {
                *deregister_first = false;
                // Its name stays, for its verdict, and for a list that is older than the answer.
                if let Some(registration) = &mut runner.registration {
                    registration.id = None;
                }
                runner.attempts = 0;
                runner.retry_at = None;
            }
            // It just got a job: GitHub arbitrates, and the job wins.
            Ok(Deleted::Busy) => become_busy(runner, None, now),
            Err(retry_after) => wait(runner, retry_after, now, random),
        }
    }

    /// Folds in GitHub's whole list, asked for at `asked`.
    pub fn listed(
        &mut self,
        list: &BTreeMap<String, ListedRunner>,
        by_slot: &BTreeMap<Slot, (RunnerName, RunnerId)>,
        asked: Timestamp,
        now: Timestamp,
    ) {
        let mut accepted = false;
        for runner in self.runners.values_mut() {
            // Only a list that was asked for after a change can speak of it.
            if runner.pending || runner.since >= asked {
                continue;
            }
            let nameless = runner
                .registration
                .as_ref()
                .is_none_or(|registration| registration.id.is_none());
            let may_listen = match &runner.phase {
                Phase::Registering => true,
                Phase::Retiring {
                    deregister_first, ..
                } => *deregister_first,
                Phase::Booting | Phase::Spare | Phase::Minting | Phase::Idle | Phase::Busy => false,
            };
            // Adopted while its mint was under way: the name tells the slot.
            if nameless
                && may_listen
                && let Some((name, id)) = by_slot.get(&runner.slot)
            {
                runner.registration = Some(Registration {
                    id: Some(*id),
                    name: name.clone(),
                });
            }
            let seen = runner
                .registration
                .as_ref()
                .and_then(|registration| list.get(&registration.name.to_string()));
            accepted |= runner.phase == Phase::Idle
                && seen.is_some_and(|seen| seen.online)
                && asked.since(runner.since) >= LISTENED_LONG;
            match (&runner.phase, seen) {
                (Phase::Registering | Phase::Idle, Some(seen)) if seen.busy => {
                    become_busy(runner, None, now);
                }
                (Phase::Registering, Some(seen)) if seen.online => {
                    runner.missed = 0;
                    runner.enter(Phase::Idle, now);
                }
                (Phase::Registering | Phase::Idle, Some(seen)) => {
                    runner.missed = 0;
                    runner.offline_seen = (!seen.online).then_some(asked);
                }
                (Phase::Registering | Phase::Idle | Phase::Retiring { .. }, None)
                    if asked.since(runner.since) >= LIST_GRACE =>
                {
                    runner.missed = runner.missed.saturating_add(1);
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
            self.backoffs.succeed(FailureKind::Version);
        }
    }
}
