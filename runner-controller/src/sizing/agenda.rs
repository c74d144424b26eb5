//! The events that are to come, in their order.

use std::collections::BTreeMap;

use crate::pool::{Invocation, RunnerId, RunnerName, ScopeId, SlotId, Timestamp};

/// A container: the start in a slot of a host. A later start in the slot is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) slot: SlotId,
    pub(super) invocation: Invocation,
}

/// An event.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A job comes.
    Queued(usize),
    /// An event on one host.
    At(usize, HostEvent),
}

/// Stage of a job that a host hears of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Queued,
    Started,
    Ended,
}

/// An event on one host.
#[derive(Debug, Clone)]
pub(super) enum HostEvent {
    /// GitHub tells of a job.
    Told(usize, Told),
    /// systemd has started the unit.
    Started(Container),
    /// The container asks for its JIT config.
    Booted(Container),
    /// GitHub has answered a mint, and the container has its config.
    Minted(Container, RunnerName, RunnerId),
    /// The listener waits for a job.
    Online(Container),
    /// The job-started hook runs.
    JobStarts(Container, usize),
    /// The job has ended.
    JobEnds(Container, usize),
    /// The unit is gone.
    Gone(Container),
    /// systemd has answered a call that ends a unit.
    EndAnswered(SlotId),
    /// GitHub has answered the deregistration of a runner.
    Deregistered(SlotId, RunnerId),
    /// GitHub has answered a question for a runner.
    Found(SlotId, RunnerId),
    /// GitHub has answered the deletion of an orphaned registration.
    Deleted(ScopeId, RunnerId),
    /// An early list was requested then, and arrives.
    ListedEarly(ScopeId, Timestamp),
    /// A full reconcile is due.
    Reconcile,
    /// The core has something to decide, although nothing happened.
    Wake,
}

/// The events that are to come. Events of one moment keep the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    events: BTreeMap<(u64, u64), Event>,
    added: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at_ms: u64, event: Event) {
        self.added += 1;
        self.events.insert((at_ms, self.added), event);
    }

    /// Returns the time of the next event.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.events.keys().next().map(|(at_ms, _)| *at_ms)
    }

    /// Takes the next event if its time has come.
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<Event> {
        if self.next_ms()? > now_ms {
            return None;
        }
        self.events.pop_first().map(|(_, event)| event)
    }
}
