//! GitHub: registrations, jobs, scale sets, and the REST API.
//!
//! ```text
//! registrations  registrations, and the list's late view of them
//! queue          jobs, and the scale sets and runners that have them
//! scale_sets     scale sets, their sessions and their messages
//! set_calls      the calls of the scale-set service
//! rest           requests and answers
//! limits         rate limits
//! ```

mod limits;
mod queue;
mod registrations;
mod rest;
mod scale_sets;
mod set_calls;

use std::collections::BTreeMap;

use runner_controller::pool::{ListedRunner, RunnerId};

use crate::event::{JobId, SimEvent};
use crate::fault::{AnswerFailure, LimitNotice};
use crate::random::{Random, Stream};
use crate::schedule::Scheduler;

use limits::Limits;
use queue::QueuedJob;
use registrations::RegisteredRunner;
use scale_sets::ScaleSets;

/// The schedule as GitHub sees it.
type Schedule<'a> = dyn Scheduler<Timer> + 'a;

/// A timer of GitHub.
pub(crate) enum Timer {
    /// A message with a job reaches a listener.
    OfferJob(JobId, RunnerId),
    /// A job must have been taken by now.
    ReturnJob(JobId, RunnerId),
    /// The runner's job is over for GitHub, and the single-use registration with it.
    Release(RunnerId),
    /// The lock of a lost runner's job lapses.
    Unlock(RunnerId),
    /// GitHub notices that a listener is gone.
    Offline(RunnerId),
    /// A workflow cancels a job.
    CancelJob(JobId),
    /// The runners of a set have had the time to take a job since the assignment with this number.
    Reassign(JobId, u64),
    /// The end of a runner's job is told, with this result.
    TellEnd(JobId, RunnerId, &'static str),
    /// The items of a set become a message.
    CutMessage(u64),
    /// GitHub has held a poll of a set for long enough.
    EndHold(u64, u64),
}

/// GitHub's faults.
#[derive(Debug, Default)]
struct Faults {
    refuses_version: bool,
    /// Every deletion is answered by 500.
    deletes_fail: bool,
    /// A failure that lasts, and the affected calls in a thousand.
    failure: Option<(AnswerFailure, u64)>,
    /// A limit that lasts until a moment of the history.
    limited: Option<(u64, LimitNotice)>,
    /// Ends of jobs are told while the jobs run, and jobs are cancelled.
    odd_ends: bool,
}

/// A row of the list that is gone.
struct FadingRow {
    row: ListedRunner,
    /// The scope whose list it is in.
    scope: String,
    /// Time until which the list still shows it.
    until: u64,
}

/// GitHub.
pub(crate) struct GitHub {
    random: Random,
    runners: BTreeMap<RunnerId, RegisteredRunner>,
    /// Rows of lists that are gone.
    fading: BTreeMap<RunnerId, FadingRow>,
    jobs: BTreeMap<JobId, QueuedJob>,
    sets: ScaleSets,
    last_id: u64,
    faults: Faults,
    limits: Limits,
    /// Rows on a page of the list.
    page_size: usize,
}

impl GitHub {
    /// Returns GitHub without registrations and jobs. The seed chooses its limits and the size of a page.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, Stream::GitHub);
        let page_size = *random.pick(&[2, 5, 100]).unwrap_or(&100);
        let limit = *random.pick(&[40, 300, 5_000]).unwrap_or(&5_000);
        let window_ms = random.between(120, 3_600) * 1000;
        Self {
            random,
            runners: BTreeMap::new(),
            fading: BTreeMap::new(),
            jobs: BTreeMap::new(),
            sets: ScaleSets::new(seed),
            last_id: 1 << 33,
            faults: Faults::default(),
            limits: Limits::new(limit, window_ms),
            page_size,
        }
    }

    /// A timer is due.
    pub(crate) fn timer(&mut self, timer: Timer, schedule: &mut Schedule<'_>) {
        match timer {
            Timer::OfferJob(job, runner) => schedule.emit(SimEvent::JobOffered { job, runner }),
            Timer::ReturnJob(job, runner) => self.return_job(job, runner, schedule),
            Timer::Release(runner) => {
                self.unlock(runner);
                self.deregister(runner, true, schedule);
            }
            Timer::Unlock(runner) => self.unlock(runner),
            Timer::Offline(runner) => {
                if let Some(runner) = self.runners.get_mut(&runner) {
                    runner.online = false;
                }
            }
            Timer::CancelJob(job) => self.cancel_job(job, schedule),
            Timer::Reassign(job, number) => self.reassign(job, number, schedule),
            Timer::TellEnd(job, runner, result) => self.tell_end(job, runner, result, schedule),
            Timer::CutMessage(set) => self.cut_message(set, schedule),
            Timer::EndHold(set, call) => self.end_hold(set, call, schedule),
        }
    }

    fn unlock(&mut self, runner: RunnerId) {
        if let Some(runner) = self.runners.get_mut(&runner) {
            runner.job = None;
        }
    }

    /// GitHub refuses listeners of this version, or accepts them again.
    pub(crate) fn set_refuses_version(&mut self, refuses: bool) {
        self.faults.refuses_version = refuses;
    }

    /// Deletions fail, or succeed again.
    pub(crate) fn set_deletes_fail(&mut self, fail: bool) {
        self.faults.deletes_fail = fail;
    }

    /// Ends of jobs are told oddly, or as they should be.
    pub(crate) fn set_odd_ends(&mut self, odd: bool) {
        self.faults.odd_ends = odd;
    }

    /// Calls fail at this rate in a thousand until further notice.
    pub(crate) fn set_failure(&mut self, failure: Option<(AnswerFailure, u64)>) {
        self.faults.failure = failure;
    }

    /// GitHub limits calls until a moment of the history.
    pub(crate) fn set_limited(&mut self, until: u64, notice: LimitNotice) {
        self.faults.limited = Some((until, notice));
    }

    /// All faults end, and the limits are generous from now on.
    pub(crate) fn calm(&mut self) {
        self.faults = Faults::default();
        self.limits.set_limit(5_000);
        self.garble_message(0);
    }
}
