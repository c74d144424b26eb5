//! Changes of a pool by GitHub's answers: mints, deregistrations and lists.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::backoff::{FailureKind, LIST_GRACE};
use super::names::{RunnerName, Slot};
use super::observation::{Deleted, ListedRunner, RunnerId};
use super::runner::{Call, Cause, Phase, Registration, Runner};
use super::scope::ScopeId;
use super::state::{ACCEPTED_AFTER, MAX_MISSED_LISTS, Pool};
use super::time::Timestamp;

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
            runner.is_listed = false;
            runner.was_listed = false;
            runner.is_claimed = false;
            runner.registration = Some(Registration {
                scope: self.spec.scope.clone(),
                id: None,
                name,
            });
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
                if let Some(registration) = &mut runner.registration {
                    registration.id = Some(id);
                }
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

    /// Applies GitHub's answer to the question for one runner, which its lists do not have.
    ///
    /// A runner of another name has the id for another reason, so this one is not registered.
    pub fn find_answered(
        &mut self,
        slot: Slot,
        id: RunnerId,
        result: Result<Option<ListedRunner>, Option<Duration>>,
        now: Timestamp,
        random: u32,
    ) {
        let runner = self.runners.get_mut(&slot);
        let Some(runner) = runner.filter(|runner| runner.id() == Some(id)) else {
            self.unanswered.remove(&(slot, Call::Deregister));
            return;
        };
        let name = runner.name().map(ToString::to_string);
        let found = result.map(|found| found.filter(|listed| Some(&listed.name) == name.as_ref()));
        let result = match found {
            Ok(None) => Ok(Deleted::Gone),
            Ok(Some(listed)) if listed.busy => Ok(Deleted::Busy),
            // The lists were wrong, and the next ones decide.
            Ok(Some(_)) => {
                runner.missed_lists = 0;
                Err(None)
            }
            Err(retry_after) => Err(retry_after),
        };
        self.deregistration_answered(slot, id, result, now, random);
    }

    /// Applies GitHub's whole list of a scope, which was requested at `requested_at`.
    ///
    /// `by_name` has the list's entries by name, and `by_slot` the most likely one for each slot.
    /// `scopes` are all that are listed.
    pub fn listed(
        &mut self,
        scope: &ScopeId,
        by_name: &BTreeMap<&str, &ListedRunner>,
        by_slot: &BTreeMap<Slot, (RunnerName, RunnerId)>,
        scopes: &BTreeSet<ScopeId>,
        requested_at: Timestamp,
        now: Timestamp,
    ) {
        let mut is_accepted = false;
        let is_of_pool = self.registers_in(scope);
        let entry_of = |slot: Slot| {
            let entry = by_slot.get(&slot);
            entry.and_then(|(name, _)| by_name.get(name.to_string().as_str()))
        };
        let is_busy = |slot: Slot| entry_of(slot).is_some_and(|listed| listed.busy);
        let is_at_work = |slot: Slot| is_busy(slot) || entry_of(slot).is_some_and(|l| l.online);
        let is_removed = self.spec.scope.is_none();
        for runner in self.runners.values_mut() {
            let listed = runner.registration.as_ref().and_then(|registration| {
                let listed = by_name.get(registration.name.to_string().as_str());
                listed.filter(|listed| registration.id.is_none_or(|id| id == listed.id))
            });
            let is_about = match (&mut runner.registration, listed) {
                // A record that was lost may be of a runner in another scope, which shows it at work.
                (None, _) if is_of_pool || is_at_work(runner.slot) => true,
                // Its pool is not configured any more, and may have registered it in any scope.
                (None, _) => {
                    is_removed
                        && runner.since < requested_at
                        && is_missing_everywhere(&mut runner.missing_from, scope, scopes)
                }
                (Some(registration), listed) => match &registration.scope {
                    Some(minted_in) => minted_in == scope,
                    // The list shows the id under the name, so it is the scope of both.
                    None if listed.is_some() => {
                        registration.scope = Some(scope.clone());
                        true
                    }
                    None => is_of_pool,
                },
            };
            if !is_about {
                continue;
            }
            // Evidence for a deletion, whatever else changed since the list was requested.
            runner.set_listed(listed.copied());
            // A list that was requested before a change says nothing about it.
            if runner.pending.is_some() || runner.since >= requested_at {
                continue;
            }
            let may_listen = match &runner.phase {
                Phase::Registering => true,
                Phase::Retiring {
                    deregister_first, ..
                } => *deregister_first,
                // The record of a claimed registration is left out.
                Phase::Idle => runner.registration.is_none() || runner.is_claimed,
                // Its job may be under another name than the one that seemed busy before.
                Phase::Busy => runner.is_claimed && is_busy(runner.slot),
                Phase::Booting | Phase::Spare | Phase::Minting => false,
            };
            // It was adopted during its mint. Only the slot in the name tells that the entry is its own, so a
            // newer list may show a more likely one.
            if (runner.id().is_none() || runner.is_claimed)
                && may_listen
                && let Some((name, id)) = by_slot.get(&runner.slot)
            {
                claim(runner, scope, name, *id, now);
            }
            let name = runner.name().map(ToString::to_string);
            let listed = name.and_then(|name| by_name.get(name.as_str()));
            let listed = listed.filter(|listed| runner.id().is_none_or(|id| id == listed.id));
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
            if runner.is_claimed {
                claim_listed(runner, listed.is_some(), is_busy(runner.slot), now);
            }
        }
        if is_accepted {
            self.backoffs.succeed(FailureKind::Version);
        }
    }
}

/// Decides by a list whether a runner has a job whose registration is only claimed. GitHub is not asked to
/// delete what may be another host's. `is_busy` tells whether the list has a job in its slot.
fn claim_listed(runner: &mut Runner, is_listed: bool, is_busy: bool, now: Timestamp) {
    if runner.may_lack_its_job() {
        job_listed(runner, is_busy, now);
    }
    let is_missed = runner.missed_lists >= MAX_MISSED_LISTS;
    if let Phase::Retiring {
        deregister_first, ..
    } = &mut runner.phase
        && *deregister_first
    {
        if is_busy {
            runner.become_busy(None, now);
        } else if is_listed || is_missed {
            *deregister_first = false;
        }
    }
}

/// Gives a runner the registration that only the slot in its name claims.
fn claim(runner: &mut Runner, scope: &ScopeId, name: &RunnerName, id: RunnerId, now: Timestamp) {
    let is_other = runner.name() != Some(name);
    if let Some(job) = &mut runner.job
        && is_other
        && !runner.is_job_reported
    {
        // No report tells of its start, so the first list that shows it does.
        (job.since, runner.since) = (now, now);
    }
    runner.is_claimed |= is_other;
    (runner.is_listed, runner.was_listed) = (true, true);
    runner.registration = Some(Registration {
        scope: Some(scope.clone()),
        id: Some(id),
        name: name.clone(),
    });
}

/// Notes that a list lacks a runner. Returns true once the list of every scope did, and begins again.
fn is_missing_everywhere(
    missing_from: &mut BTreeSet<ScopeId>,
    scope: &ScopeId,
    scopes: &BTreeSet<ScopeId>,
) -> bool {
    missing_from.insert(scope.clone());
    let is_everywhere = scopes.is_subset(missing_from);
    if is_everywhere {
        missing_from.clear();
    }
    is_everywhere
}

/// Applies a list to a runner whose job may not be its own: two in a row without a job in its slot show that
/// it has none.
fn job_listed(runner: &mut Runner, is_busy: bool, now: Timestamp) {
    if is_busy {
        runner.missed_lists = 0;
        return;
    }
    runner.missed_lists = runner.missed_lists.saturating_add(1);
    if runner.missed_lists >= MAX_MISSED_LISTS {
        (runner.job, runner.missed_lists) = (None, 0);
        runner.enter(Phase::Registering, now);
    }
}
