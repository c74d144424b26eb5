//! The plan: the next steps of one pool.

use std::time::Duration;

use super::backoff::FailureKind;
use super::names::Slot;
use super::runner::{Cause, Phase, Runner};
use super::schedule::Silence;
use super::state::{MAX_MISSED_LISTS as GHOST_LISTS, Pool};
use super::step::{Ending, Step};
use super::time::Timestamp;

/// Permission to start and register runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Runners start and register.
    Open,
    /// No runner starts or registers, and the others go on.
    Closed,
    /// No runner starts or registers, and those without a job end.
    Draining,
    /// No runner starts or registers, and all end, jobs included.
    Clearing,
}

/// Decides the next steps for one pool.
///
/// Settles: planning again at the same time, after the returned steps have begun, returns no steps.
/// After they are carried out it returns none until an event arrives or [`next_deadline`] passes.
#[must_use]
pub fn plan(pool: &Pool, admission: Admission, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    for runner in pool.runners.values() {
        steps.extend(end_step(pool, runner, admission, now));
    }
    if admission == Admission::Open {
        steps.extend(replace_old(pool, &steps));
        let supply = supply(pool, &steps);
        let registrations = supply.register(now);
        let excess = supply.retire_excess(&registrations);
        steps.extend(registrations);
        steps.extend(supply.start(now));
        steps.extend(excess);
    }
    steps
}

/// Returns the next step towards the end of a runner, if it must end.
fn end_step(pool: &Pool, runner: &Runner, admission: Admission, now: Timestamp) -> Option<Step> {
    let slot = runner.slot;
    let t = &pool.spec.timeouts;
    let age = now.since(runner.since);
    let retire = |cause| Some(Step::Retire { slot, cause });
    if admission == Admission::Clearing
        && !matches!(
            runner.phase,
            Phase::Retiring {
                cause: Cause::Removed,
                ..
            }
        )
    {
        return retire(Cause::Removed);
    }
    // A runner that GitHub cannot be asked about is left alone. It ends by itself.
    if is_out_of_reach(pool, runner) {
        return None;
    }
    let is_unconfigured = slot.number() > pool.spec.slots;
    let leave = match &runner.phase {
        Phase::Busy | Phase::Minting | Phase::Retiring { .. } => None,
        Phase::Booting | Phase::Spare | Phase::Registering | Phase::Idle
            if admission == Admission::Draining =>
        {
            Some(Cause::Drained)
        }
        Phase::Booting | Phase::Spare | Phase::Registering | Phase::Idle if is_unconfigured => {
            Some(Cause::ScaledDown)
        }
        Phase::Registering | Phase::Idle if !pool.serves(runner) => Some(Cause::ScaledDown),
        Phase::Booting | Phase::Spare | Phase::Registering | Phase::Idle => None,
    };
    if let (Some(cause), false) = (leave, runner.pending.is_some()) {
        return retire(cause);
    }
    match &runner.phase {
        Phase::Booting if age >= t.boot && runner.pending.is_none() => retire(Cause::BootTimeout),
        Phase::Spare | Phase::Registering | Phase::Idle
            if runner.has_lost_address() && runner.pending.is_none() =>
        {
            retire(Cause::AddressLost)
        }
        Phase::Spare if age >= t.spare_age => retire(Cause::SpareAged),
        Phase::Idle if age >= t.idle_age => retire(Cause::IdleAged),
        Phase::Idle if runner.missed_lists >= GHOST_LISTS => retire(Cause::Ghost),
        Phase::Registering if is_overdue(runner, t.registration) => {
            retire(Cause::RegistrationTimeout)
        }
        Phase::Registering if runner.missed_lists >= GHOST_LISTS && age >= t.registration => {
            retire(Cause::RegistrationTimeout)
        }
        Phase::Busy if age >= t.job => retire(Cause::JobTimeout),
        Phase::Retiring {
            deregister_first,
            end_requested_at,
            ..
        } => {
            if runner.pending.is_some() || runner.retry_at.is_some_and(|at| now < at) {
                return None;
            }
            match (deregister_first, runner.id()) {
                // It may be another host's. The next list tells whether the runner has a job.
                (true, _) if runner.is_claimed => None,
                (true, Some(id)) if runner.is_listed => Some(Step::Deregister { slot, id }),
                // It may be registered in another scope, which no list or answer is about.
                (true, _) if runner.has_unknown_scope() => None,
                // Lists tell the id, or that there is none. Without a list that shows the id under its
                // name nothing is deleted, because the id could be another runner's.
                (true, _) if runner.missed_lists < GHOST_LISTS => None,
                (true, Some(id)) => Some(Step::Find { slot, id }),
                (true, None) | (false, _) => {
                    let is_due = end_requested_at.is_none_or(|at| now.since(at) >= t.stop);
                    is_due.then(|| Step::End {
                        slot,
                        how: ending(runner, now, t.stop),
                    })
                }
            }
        }
        Phase::Booting
        | Phase::Spare
        | Phase::Minting
        | Phase::Registering
        | Phase::Idle
        | Phase::Busy => None,
    }
}

/// Returns true if the runner may get a job from a scope that GitHub cannot be asked about: the lists of
/// the configured scope do not have it, and no list of the runner's scope arrives.
fn is_out_of_reach(pool: &Pool, runner: &Runner) -> bool {
    let may_have_a_job = match &runner.phase {
        Phase::Registering | Phase::Idle => true,
        Phase::Retiring {
            deregister_first, ..
        } => *deregister_first,
        Phase::Booting | Phase::Spare | Phase::Minting | Phase::Busy => false,
    };
    let is_answered = runner.is_listed || runner.missed_lists > 0;
    may_have_a_job && !pool.serves(runner) && (runner.has_unknown_scope() || !is_answered)
}

/// Returns the way to end a runner's unit. A job is stopped in order, so that GitHub shows it as
/// cancelled at once.
fn ending(runner: &Runner, now: Timestamp, stop: Duration) -> Ending {
    let is_overdue = now.since(runner.since) >= stop;
    if runner.job.is_some() && !is_overdue {
        Ending::Stop
    } else {
        Ending::Kill
    }
}

/// Returns true if GitHub showed the runner offline after its time to register. A list that did not
/// come decides nothing.
fn is_overdue(runner: &Runner, registration: Duration) -> bool {
    runner
        .offline_at
        .is_some_and(|at| at.since(runner.since) >= registration)
}

/// Retires a runner of an old generation, one at a time, so that the pool is never replaced at once.
fn replace_old(pool: &Pool, steps: &[Step]) -> Option<Step> {
    let is_rolling = |runner: &Runner| {
        matches!(
            runner.phase,
            Phase::Retiring {
                cause: Cause::Rolled,
                ..
            }
        ) && !is_out_of_reach(pool, runner)
    };
    if pool.runners.values().any(is_rolling) {
        return None;
    }
    let is_old = |runner: &&Runner| {
        let is_free =
            matches!(runner.phase, Phase::Spare | Phase::Idle) && runner.pending.is_none();
        let is_free = is_free && pool.serves(runner);
        let is_other = runner
            .generation
            .as_ref()
            .is_some_and(|generation| *generation != pool.spec.generation);
        is_free && is_other && steps.iter().all(|step| step.slot() != runner.slot)
    };
    let slot = pool.runners.values().find(is_old)?.slot;
    Some(Step::Retire {
        slot,
        cause: Cause::Rolled,
    })
}

/// Runners that count towards the desired numbers.
struct Supply<'a> {
    pool: &'a Pool,
    /// Booting and spare runners, oldest first.
    spares: Vec<&'a Runner>,
    /// Minting, registering and idle runners.
    listeners: Vec<&'a Runner>,
}

/// Counts the runners that stay after `steps`.
fn supply<'a>(pool: &'a Pool, steps: &[Step]) -> Supply<'a> {
    let is_leaving = |runner: &&Runner| steps.iter().any(|step| step.slot() == runner.slot);
    let staying = pool.runners.values().filter(|runner| !is_leaving(runner));
    let mut spares = Vec::new();
    let mut listeners = Vec::new();
    for runner in staying {
        match &runner.phase {
            Phase::Booting | Phase::Spare => spares.push(runner),
            // It serves another scope.
            Phase::Registering | Phase::Idle if !pool.serves(runner) => {}
            Phase::Minting | Phase::Registering | Phase::Idle => listeners.push(runner),
            Phase::Busy | Phase::Retiring { .. } => {}
        }
    }
    spares.sort_by_key(|runner| (runner.started_at, runner.slot));
    Supply {
        pool,
        spares,
        listeners,
    }
}

impl Supply<'_> {
    /// Returns the number of runners without a job.
    fn free(&self) -> usize {
        self.spares.len() + self.listeners.len()
    }

    /// Registers spares while too few runners listen.
    fn register(&self, now: Timestamp) -> Vec<Step> {
        let backoffs = &self.pool.backoffs;
        if !backoffs.may_register(now) {
            return Vec::new();
        }
        let wanted = self.pool.target_beside_jobs().listeners;
        let lack = wanted.saturating_sub(self.listeners.len());
        // After a refused version one runner at a time tries whether the image is newer now.
        let is_refused = backoffs
            .iter()
            .any(|(failure, _)| failure == FailureKind::Version);
        let is_trying = is_refused
            && self
                .listeners
                .iter()
                .any(|runner| runner.phase != Phase::Idle);
        let at_once = match (is_refused, is_trying) {
            (false, _) => self.pool.mint_quota,
            (true, false) => self.pool.mint_quota.min(1),
            (true, true) => 0,
        };
        let ready = self.spares.iter().filter(|runner| {
            runner.phase == Phase::Spare
                && runner.pending.is_none()
                && self.pool.waiting.contains(&runner.slot)
        });
        ready
            .take(lack.min(at_once))
            .map(|runner| Step::Register { slot: runner.slot })
            .collect()
    }

    /// Starts runners in vacant slots while there are too few.
    fn start(&self, now: Timestamp) -> Vec<Step> {
        let spec = &self.pool.spec;
        if !self.pool.backoffs.is_due(FailureKind::Boot, now) {
            return Vec::new();
        }
        let target = self.pool.target();
        let lack = target.free().saturating_sub(self.free());
        let room = target.max.saturating_sub(self.pool.runners.len());
        let booting = self.pool.count(|phase| *phase == Phase::Booting);
        // After a failed boot one container at a time tries whether boots succeed again.
        let is_failing = self
            .pool
            .backoffs
            .iter()
            .any(|(failure, _)| failure == FailureKind::Boot);
        let at_once = if is_failing {
            1
        } else {
            usize::from(spec.boots_at_once)
        };
        let mut vacant: Vec<Slot> = Slot::first(spec.slots)
            .filter(|slot| !self.pool.runners.contains_key(slot))
            .filter(|slot| !self.pool.awaits_answer(*slot))
            .collect();
        vacant.sort_by_key(|slot| (self.pool.boot_failed_at.get(slot).copied(), *slot));
        let count = lack.min(room).min(at_once.saturating_sub(booting));
        vacant
            .into_iter()
            .take(count)
            .map(|slot| Step::Start { slot })
            .collect()
    }

    /// Retires runners beyond the desired numbers, as after a change of the configuration.
    ///
    /// Spares go first, the youngest first, without those of `registrations`. Idle runners go only beyond
    /// their own number.
    fn retire_excess(&self, registrations: &[Step]) -> Vec<Step> {
        let excess = self.free() - self.pool.kept(self.free());
        let spares = self
            .spares
            .iter()
            .rev()
            .filter(|runner| runner.pending.is_none())
            .filter(|runner| registrations.iter().all(|step| step.slot() != runner.slot))
            .take(excess);
        let spares: Vec<Step> = spares
            .map(|runner| Step::Retire {
                slot: runner.slot,
                cause: Cause::ScaledDown,
            })
            .collect();
        let idle_excess = self
            .listeners
            .len()
            .saturating_sub(self.pool.target_beside_jobs().listeners)
            .min(excess - spares.len());
        let idle = self
            .listeners
            .iter()
            .filter(|runner| runner.phase == Phase::Idle && runner.pending.is_none());
        let idle = idle.take(idle_excess).map(|runner| Step::Retire {
            slot: runner.slot,
            cause: Cause::ScaledDown,
        });
        spares.into_iter().chain(idle).collect()
    }
}

/// Returns the first time after `now` at which [`plan`] may return steps although no event arrived.
#[must_use]
pub fn next_deadline(pool: &Pool, now: Timestamp) -> Option<Timestamp> {
    let t = &pool.spec.timeouts;
    let deadlines = |runner: &Runner| {
        let due = match &runner.phase {
            Phase::Booting => Some(runner.since + t.boot),
            Phase::Spare => Some(runner.since + t.spare_age),
            Phase::Idle => Some(runner.since + t.idle_age),
            Phase::Busy => Some(runner.since + t.job),
            Phase::Registering => Some(runner.since + t.registration),
            Phase::Minting => None,
            Phase::Retiring {
                end_requested_at, ..
            } => end_requested_at.map(|at| at + t.stop),
        };
        [due, runner.retry_at]
    };
    let runners = pool.runners.values().flat_map(deadlines).flatten();
    let backoffs = pool.backoffs.iter().map(|(_, backoff)| backoff.until);
    let silence = pool.silence.into_iter();
    let probe = silence.flat_map(Silence::changes_at);
    let times = runners
        .chain(backoffs)
        .chain(pool.scales_down_at())
        .chain(probe);
    times.filter(|at| *at > now).min()
}
