//! Scale sets: what their messages told and the host has on record, and what the daemon announces.

use std::collections::{BTreeMap, BTreeSet};

use runner_controller::controller::Command;
use runner_controller::pool::{KnownJob, PoolName};
use runner_controller::world::Event;

use super::checked::{Checked, violated};
use crate::event::{JobStep, SimEvent, ToldStep};
use crate::fault::Fault;
use crate::invariant::Invariant;

/// Time in which the daemon takes its announcement back once no runner may start, in milliseconds.
const TAKES_BACK_MS: u64 = 3_000;

/// A poll that the daemon waits for.
#[derive(Debug)]
struct Poll {
    pool: PoolName,
    capacity: u32,
}

/// Scale sets.
#[derive(Default)]
pub(super) struct Sets {
    /// The jobs on record, by name.
    records: BTreeMap<String, KnownJob>,
    /// Content of deleted messages.
    deleted: BTreeSet<ToldStep>,
    polls: BTreeMap<u64, Poll>,
    is_short: bool,
    is_open_to_others: bool,
    is_drained: bool,
    /// The daemon was told to end, and hears nothing any more.
    is_stopping: bool,
    /// Time since which the daemon knows that no runner may start.
    closed_since: Option<u64>,
}

impl Sets {
    /// Takes in an event, and checks what it concerns.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "it concerns few of the events"
    )]
    pub(super) fn check(&mut self, event: &SimEvent, now: u64) -> Checked {
        self.follow(event, now);
        match event {
            SimEvent::SetDeleted { name } => violated(Invariant::SetsKept, name),
            SimEvent::MessageDeleted { told } => {
                self.deleted.extend(told.iter().cloned());
                told.iter().try_for_each(|told| self.check_record(told))
            }
            SimEvent::JobRecorded { name, job } => {
                match job {
                    Some(job) => self.records.insert(name.clone(), (**job).clone()),
                    None => self.records.remove(name),
                };
                let told = self.deleted.iter().filter(|told| told.name == *name);
                told.into_iter()
                    .try_for_each(|told| self.check_record(told))
            }
            _ => self.check_closed(now),
        }
    }

    fn check_record(&self, told: &ToldStep) -> Checked {
        let has = |job: &&KnownJob| match told.step {
            JobStep::Assigned => true,
            JobStep::Started => job.started_unix_ms.is_some(),
            JobStep::Completed => job.end.is_some(),
        };
        if self.records.get(&told.name).is_some_and(|job| has(&job)) {
            return Ok(());
        }
        let facts = format!("{:?} of job {}", told.step, told.name);
        violated(Invariant::MessagesOnRecord, facts)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "it concerns few of the events"
    )]
    fn follow(&mut self, event: &SimEvent, now: u64) {
        match event {
            SimEvent::PollSent {
                call,
                pool,
                capacity,
                ..
            } => {
                let (pool, capacity) = (pool.clone(), *capacity);
                self.polls.insert(*call, Poll { pool, capacity });
            }
            SimEvent::PollEnded { call } => {
                self.polls.remove(call);
            }
            SimEvent::DaemonStarted { .. } | SimEvent::DaemonEnded { .. } => {
                self.polls.clear();
                self.is_short = false;
                self.is_open_to_others = false;
                self.is_drained = false;
                self.is_stopping = false;
            }
            SimEvent::FaultStarted(Fault::DaemonRestarted | Fault::ConfigChanged)
            | SimEvent::Calm => self.is_stopping = true,
            SimEvent::Told(Event::Shortages(short)) => self.is_short = !short.is_empty(),
            SimEvent::Told(Event::Firewall { problem }) => {
                self.is_open_to_others = problem.is_some();
            }
            SimEvent::CommandAccepted(command) => match command {
                Command::Drain | Command::Clear { .. } => self.is_drained = true,
                Command::Undrain | Command::Refill(_) => self.is_drained = false,
                Command::Ping => {}
            },
            _ => return,
        }
        let is_closed = self.is_short || self.is_open_to_others || self.is_drained;
        if is_closed && !self.is_stopping {
            self.closed_since.get_or_insert(now);
        } else {
            self.closed_since = None;
        }
    }

    fn check_closed(&self, now: u64) -> Checked {
        let Some(since) = self
            .closed_since
            .filter(|since| since + TAKES_BACK_MS < now)
        else {
            return Ok(());
        };
        let mut polls = self.polls.iter();
        let Some((call, waiting)) = polls.find(|(_, waiting)| waiting.capacity > 0) else {
            return Ok(());
        };
        let (pool, capacity, ms) = (&waiting.pool, waiting.capacity, now - since);
        let facts = format!(
            "call {call} announces {capacity} for {pool}, and no runner may start for {ms} ms"
        );
        violated(Invariant::CapacityCanStart, facts)
    }
}
