//! What to do next, from what is known. Pure.

use std::time::Duration;

use super::backoff::FailureKind;
use super::names::Slot;
use super::observation::RunnerId;
use super::runner::{Cause, Phase, Runner};
use super::state::Pool;
use super::time::Timestamp;

/// A second list must agree before a runner that listens is called a ghost.
const MISSED_LISTS: u8 = 2;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Start the slot's unit.
    Start {
        /// The slot.
        slot: Slot,
    },
    /// Mint a config and hand it to the spare.
    Register {
        /// The slot.
        slot: Slot,
    },
    /// Begin to end a life.
    Retire {
        /// The slot.
        slot: Slot,
        /// Why.
        cause: Cause,
    },
    /// Ask GitHub to forget it. Only if it agrees is the runner ended.
    Deregister {
        /// The slot.
        slot: Slot,
        /// GitHub's id.
        id: RunnerId,
    },
    /// End its unit.
    End {
        /// The slot.
        slot: Slot,
        /// How.
        how: Ending,
    },
}

impl Step {
    /// The slot it is about.
    #[must_use]
    pub fn slot(&self) -> Slot {
        match self {
            Self::Start { slot }
            | Self::Register { slot }
            | Self::Retire { slot, .. }
            | Self::Deregister { slot, .. }
            | Self::End { slot, .. } => *slot,
        }
    }
}

/// How a unit is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// In order, so that the runner can tell GitHub.
    Stop,
    /// At once.
    Kill,
}

/// Whether new lives and registrations are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Open,
    /// Not now; what lives goes on.
    Closed,
    /// No, and what has no job is to end.
    Draining,
    /// No, and everything is to end, jobs included.
    Clearing,
}

/// Decides what to do next for one pool.
///
/// Settles: once the steps have been begun, planning again at the same time says nothing, and once
/// they have come true, it says nothing until something is seen or [`next_deadline`] passes.
#[must_use]
pub fn plan(pool: &Pool, admission: Admission, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    for runner in pool.runners.values() {
        steps.extend(end_of(pool, runner, admission, now));
    }
    if admission == Admission::Open {
        steps.extend(replace_old(pool, &steps));
        let wanted = wanted(pool, &steps);
        steps.extend(wanted.register(now));
        steps.extend(wanted.start(now));
        steps.extend(wanted.retire_excess());
    }
    steps
}

/// The next step towards the end of one life, if it is to end.
fn end_of(pool: &Pool, runner: &Runner, admission: Admission, now: Timestamp) -> Option<Step> {
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
    let unconfigured = slot.number() > pool.spec.max_runners;
    let leave = match &runner.phase {
        Phase::Busy | Phase::Minting | Phase::Retiring { .. } => None,
        Phase::Booting | Phase::Spare | Phase::Registering | Phase::Idle
            if admission == Admission::Draining =>
        {
            Some(Cause::Drained)
        }
        Phase::Booting | Phase::Spare | Phase::Registering | Phase::Idle if unconfigured => {
            Some(Cause::ScaledDown)
        }
        Phase::Booting | Phase::Spare | Phase::Registering | Phase::Idle => None,
    };
    if let (Some(cause), false) = (leave, runner.pending) {
        return retire(cause);
    }
    match &runner.phase {
        Phase::Booting if age >= t.boot && !runner.pending => retire(Cause::BootTimeout),
        Phase::Spare if age >= t.spare_age => retire(Cause::SpareAged),
        Phase::Idle if age >= t.idle_age => retire(Cause::IdleAged),
        Phase::Idle if runner.missed >= MISSED_LISTS => retire(Cause::Ghost),
        Phase::Registering if overdue_at_github(runner, t.registration) => {
            retire(Cause::RegistrationTimeout)
        }
        Phase::Registering if runner.missed >= MISSED_LISTS && age >= t.registration => {
            retire(Cause::RegistrationTimeout)
        }
        Phase::Busy if age >= t.job => retire(Cause::JobTimeout),
        Phase::Retiring {
            deregister_first,
            end_asked,
            ..
        } => {
            if runner.pending || runner.retry_at.is_some_and(|at| now < at) {
                return None;
            }
            let id = runner
                .registration
                .as_ref()
                .and_then(|registration| registration.id);
            match (deregister_first, id) {
                (true, Some(id)) => Some(Step::Deregister { slot, id }),
                // Given a config whose id nobody knows: lists tell the id, or that there is none.
                (true, None) if runner.missed < MISSED_LISTS => None,
                (true, None) | (false, _) => {
                    let again = end_asked.is_none_or(|asked| now.since(asked) >= t.stop);
                    again.then(|| Step::End {
                        slot,
                        how: runner.ending(now, t.stop),
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

/// Long registered, and GitHub said after that time that it is offline. A list that did not come
/// decides nothing.
fn overdue_at_github(runner: &Runner, registration: Duration) -> bool {
    runner
        .offline_seen
        .is_some_and(|seen| seen.since(runner.since) >= registration)
}

/// A life of an old generation, one at a time, so that the pool is never replaced all at once.
fn replace_old(pool: &Pool, steps: &[Step]) -> Option<Step> {
    let rolling = |runner: &Runner| {
        matches!(
            runner.phase,
            Phase::Retiring {
                cause: Cause::Rolled,
                ..
            }
        )
    };
    if pool.runners.values().any(rolling) {
        return None;
    }
    let old = |runner: &&Runner| {
        let free = matches!(runner.phase, Phase::Spare | Phase::Idle) && !runner.pending;
        let other = runner
            .generation
            .as_ref()
            .is_some_and(|generation| *generation != pool.spec.generation);
        free && other && steps.iter().all(|step| step.slot() != runner.slot)
    };
    let slot = pool.runners.values().find(old)?.slot;
    Some(Step::Retire {
        slot,
        cause: Cause::Rolled,
    })
}

/// Who counts towards what is wanted, once `steps` are done.
struct Wanted<'a> {
    pool: &'a Pool,
    /// Booting and spare, oldest first.
    spares: Vec<&'a Runner>,
    /// Minting, registering and idle.
    listeners: Vec<&'a Runner>,
}

fn wanted<'a>(pool: &'a Pool, steps: &[Step]) -> Wanted<'a> {
    let leaving = |runner: &&Runner| steps.iter().any(|step| step.slot() == runner.slot);
    let staying = pool.runners.values().filter(|runner| !leaving(runner));
    let mut spares = Vec::new();
    let mut listeners = Vec::new();
    for runner in staying {
        match &runner.phase {
            Phase::Booting | Phase::Spare => spares.push(runner),
            Phase::Minting | Phase::Registering | Phase::Idle => listeners.push(runner),
            Phase::Busy | Phase::Retiring { .. } => {}
        }
    }
    spares.sort_by_key(|runner| (runner.started_at, runner.slot));
    Wanted {
        pool,
        spares,
        listeners,
    }
}

impl Wanted<'_> {
    /// Spares that are to be given a config.
    fn register(&self, now: Timestamp) -> Vec<Step> {
        let backoffs = &self.pool.backoffs;
        if !backoffs.may_register(now) {
            return Vec::new();
        }
        let lack = usize::from(self.pool.spec.min_idle).saturating_sub(self.listeners.len());
        // After a refused version one at a time shows whether the image is newer now.
        let refused = backoffs
            .iter()
            .any(|(failure, _)| failure == FailureKind::Version);
        let trying = refused
            && self
                .listeners
                .iter()
                .any(|runner| runner.phase != Phase::Idle);
        let at_once = match (refused, trying) {
            (false, _) => self.pool.may_register,
            (true, false) => self.pool.may_register.min(1),
            (true, true) => 0,
        };
        let ready = self.spares.iter().filter(|runner| {
            runner.phase == Phase::Spare
                && !runner.pending
                && self.pool.waiting.contains(&runner.slot)
        });
        ready
            .take(lack.min(at_once))
            .map(|runner| Step::Register { slot: runner.slot })
            .collect()
    }

    /// Vacant slots that are to be started.
    fn start(&self, now: Timestamp) -> Vec<Step> {
        let spec = &self.pool.spec;
        if !self.pool.backoffs.open(FailureKind::Boot, now) {
            return Vec::new();
        }
        let enough = usize::from(spec.min_idle) + usize::from(spec.min_spare);
        let lack = enough.saturating_sub(self.spares.len() + self.listeners.len());
        let room = usize::from(spec.max_runners).saturating_sub(self.pool.runners.len());
        let booting = self.pool.count(|phase| *phase == Phase::Booting);
        // After a failed boot one try at a time shows whether it is mended.
        let failing = self
            .pool
            .backoffs
            .iter()
            .any(|(failure, _)| failure == FailureKind::Boot);
        let at_once = if failing {
            1
        } else {
            usize::from(spec.boots_at_once)
        };
        let mut vacant: Vec<Slot> = Slot::first(spec.max_runners)
            .filter(|slot| !self.pool.runners.contains_key(slot))
            .filter(|slot| !self.pool.minting.contains(slot))
            .collect();
        vacant.sort_by_key(|slot| (self.pool.boot_failed.get(slot).copied(), *slot));
        let count = lack.min(room).min(at_once.saturating_sub(booting));
        vacant
            .into_iter()
            .take(count)
            .map(|slot| Step::Start { slot })
            .collect()
    }

    /// More than wanted, as after a configuration with lower numbers: spares first, the youngest
    /// first; idle runners only beyond what is wanted of them.
    fn retire_excess(&self) -> Vec<Step> {
        let spec = &self.pool.spec;
        let enough = usize::from(spec.min_idle) + usize::from(spec.min_spare);
        let have = self.spares.len() + self.listeners.len();
        let excess = have.saturating_sub(enough);
        let spares = self
            .spares
            .iter()
            .rev()
            .filter(|runner| !runner.pending)
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
            .saturating_sub(usize::from(spec.min_idle))
            .min(excess - spares.len());
        let idle = self
            .listeners
            .iter()
            .filter(|runner| runner.phase == Phase::Idle && !runner.pending);
        let idle = idle.take(idle_excess).map(|runner| Step::Retire {
            slot: runner.slot,
            cause: Cause::ScaledDown,
        });
        spares.into_iter().chain(idle).collect()
    }
}

/// The first moment after `now` at which [`plan`] may say something new though nothing was seen.
#[must_use]
pub fn next_deadline(pool: &Pool, now: Timestamp) -> Option<Timestamp> {
    let t = &pool.spec.timeouts;
    let of_runner = |runner: &Runner| {
        let due = match &runner.phase {
            Phase::Booting => Some(runner.since + t.boot),
            Phase::Spare => Some(runner.since + t.spare_age),
            Phase::Idle => Some(runner.since + t.idle_age),
            Phase::Busy => Some(runner.since + t.job),
            Phase::Registering => Some(runner.since + t.registration),
            Phase::Minting => None,
            Phase::Retiring { end_asked, .. } => {
                runner.retry_at.or(end_asked.map(|asked| asked + t.stop))
            }
        };
        [due, runner.retry_at]
    };
    let runners = pool.runners.values().flat_map(of_runner).flatten();
    let backoffs = pool.backoffs.iter().map(|(_, backoff)| backoff.until);
    runners.chain(backoffs).filter(|at| *at > now).min()
}
