//! What GitHub says of a pool's runners: registrations made, taken back and listed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff::Trouble;
use super::life::{Cause, Life, Phase, Runner};
use super::names::{RunnerName, Slot};
use super::sight::{Deleted, Registration, RunnerId};
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
        trouble: Trouble,
        /// For the person who asks why.
        reason: String,
        /// GitHub asked for this wait.
        retry_after: Option<Duration>,
    },
}

impl Pool {
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
        self.minting.remove(&slot);
        match &outcome {
            MintOutcome::Delivered { .. } | MintOutcome::Undelivered { .. } => {
                // The connection is used up either way, whoever's it was.
                self.waiting.remove(&slot);
                for trouble in Trouble::MINTING {
                    self.backoffs.succeed(trouble);
                }
            }
            MintOutcome::Failed {
                trouble,
                reason,
                retry_after,
            } => {
                self.backoffs
                    .fail(*trouble, reason.clone(), *retry_after, now, dice);
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
                if minting && self.waiting.contains(&slot) {
                    // The container is none the worse for it.
                    life.enter(Phase::Spare, now);
                } else if minting {
                    // It hung up meanwhile, and can never be answered.
                    retire(life, Cause::SpareLost, now);
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

    /// Folds in GitHub's whole list, asked for at `asked`.
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
