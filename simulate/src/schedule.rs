//! Time and events of a history: timers that are due later, and events that follow from the present step.
//!
//! A model never calls another model. It sets its timers and emits events through a [`Scheduler`].
//! [`crate::world`] decides which models an event reaches.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};

use crate::clock;
use crate::event::SimEvent;

/// An answer to a call of the daemon, on its way.
pub(crate) struct Reply(Box<dyn FnOnce() + Send>);

impl Reply {
    /// Delivers the answer.
    pub(crate) fn deliver(self) {
        (self.0)();
    }
}

/// The schedule as a model with timers `T` sees it.
pub(crate) trait Scheduler<T> {
    /// Returns milliseconds since the history began.
    fn now(&self) -> u64 {
        clock::elapsed()
    }

    /// Emits an event. It is delivered within the present step, after the events before it.
    fn emit(&mut self, event: SimEvent);

    /// Sets a timer that is due at `at`, or now if that has passed.
    fn at(&mut self, at: u64, timer: T);

    /// Sets a timer that is due in `wait` milliseconds.
    fn after(&mut self, wait: u64, timer: T) {
        self.at(self.now() + wait, timer);
    }

    /// Delivers an answer in `wait` milliseconds. See the method `reply`.
    fn deliver_after(&mut self, wait: u64, reply: Reply);
}

impl<T> dyn Scheduler<T> + '_ {
    /// Answers a call of the daemon in `wait` milliseconds.
    pub(crate) fn reply<V: Send + 'static>(&mut self, wait: u64, to: oneshot::Sender<V>, with: V) {
        let deliver = move || {
            // The daemon that called may have ended.
            let _ = to.send(with);
        };
        self.deliver_after(wait, Reply(Box::new(deliver)));
    }
}

struct Entry<A> {
    at: u64,
    number: u64,
    timer: A,
}

impl<A> PartialEq for Entry<A> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl<A> Eq for Entry<A> {}
impl<A> PartialOrd for Entry<A> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<A> Ord for Entry<A> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Timers `A` of all models in order of time and, within a millisecond, in the order in which they were set; and
/// the events that are not delivered yet.
pub(crate) struct Schedule<A> {
    timers: BinaryHeap<Reverse<Entry<A>>>,
    events: VecDeque<SimEvent>,
    number: u64,
    steps: u64,
    earlier: Arc<Notify>,
}

impl<A> Default for Schedule<A> {
    fn default() -> Self {
        Self {
            timers: BinaryHeap::new(),
            events: VecDeque::new(),
            number: 0,
            steps: 0,
            earlier: Arc::default(),
        }
    }
}

impl<A> Schedule<A> {
    /// Emits an event. It is delivered after the events before it.
    pub(crate) fn emit(&mut self, event: SimEvent) {
        self.events.push_back(event);
    }

    fn push(&mut self, at: u64, timer: A) {
        self.number += 1;
        let at = at.max(clock::elapsed());
        if self.next_at().is_none_or(|next| at < next) {
            self.earlier.notify_one();
        }
        self.timers.push(Reverse(Entry {
            at,
            number: self.number,
            timer,
        }));
    }

    /// Returns the time of the next timer.
    #[must_use]
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.timers.peek().map(|Reverse(entry)| entry.at)
    }

    /// Returns the signal that a timer was set that is due before all others.
    #[must_use]
    pub(crate) fn earlier(&self) -> Arc<Notify> {
        Arc::clone(&self.earlier)
    }

    /// Returns the number of timers that came due.
    #[must_use]
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes the next timer.
    pub(crate) fn next_timer(&mut self) -> Option<A> {
        let Reverse(entry) = self.timers.pop()?;
        self.steps += 1;
        Some(entry.timer)
    }

    /// Takes the next event.
    pub(crate) fn next_event(&mut self) -> Option<SimEvent> {
        self.events.pop_front()
    }

    /// Drops all timers, and the answers among them.
    pub(crate) fn clear(&mut self) {
        self.timers.clear();
    }
}

impl<T, A: From<T> + From<Reply>> Scheduler<T> for Schedule<A> {
    fn emit(&mut self, event: SimEvent) {
        Schedule::emit(self, event);
    }

    fn at(&mut self, at: u64, timer: T) {
        self.push(at, timer.into());
    }

    fn deliver_after(&mut self, wait: u64, reply: Reply) {
        self.push(clock::elapsed() + wait, reply.into());
    }
}
