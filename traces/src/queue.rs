//! The runners whose spans are not sent yet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::spans::EndedRunner;

/// Maximum number of runners that wait. Beyond it the oldest are dropped, because a collector that is away must
/// not fill the memory. One takes about 2 KiB.
pub const MAX_WAITING: usize = 1024;

/// Number of runners since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runners whose spans a collector took.
    pub sent: u64,
    /// Runners whose spans are lost: there was no room for them, or the collector refused them.
    pub dropped: u64,
    /// Runners that wait, those on their way included.
    pub waiting: u64,
    /// Reason why the last request failed; `None` if it succeeded.
    pub error: Option<String>,
}

/// Result of a request with a batch of runners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The collector took them.
    Sent,
    /// They are not sent again.
    Dropped,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<EndedRunner>,
    /// Number of runners in the batch that is on its way.
    under_way: u64,
    sent: u64,
    dropped: u64,
    error: Option<String>,
    is_closed: bool,
}

/// The queue. No call but [`Queue::next`] and [`Queue::closed`] waits.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Marked when a runner was added.
    added: Notify,
    /// Marked when the queue was closed.
    closing: Notify,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is whole before anything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a runner. A full queue drops its oldest one.
    pub(crate) fn push(&self, ended: EndedRunner) {
        let mut state = self.state();
        if state.is_closed {
            state.dropped += 1;
            return;
        }
        state.waiting.push_back(ended);
        while state.waiting.len() > MAX_WAITING {
            state.waiting.pop_front();
            state.dropped += 1;
        }
        drop(state);
        self.added.notify_one();
    }

    /// Waits for runners and takes at most `count`, the oldest first. Returns none once the queue is closed and
    /// empty. They are under way until [`Queue::settle`].
    pub(crate) async fn next(&self, count: usize) -> Option<Vec<EndedRunner>> {
        loop {
            let added = self.added.notified();
            {
                let mut state = self.state();
                let count = count.min(state.waiting.len());
                if count > 0 {
                    let batch: Vec<_> = state.waiting.drain(..count).collect();
                    state.under_way = batch.len() as u64;
                    return Some(batch);
                }
                if state.is_closed {
                    return None;
                }
            }
            added.await;
        }
    }

    /// Counts the runners that were under way.
    pub(crate) fn settle(&self, settled: Settled) {
        let mut state = self.state();
        let count = std::mem::take(&mut state.under_way);
        match settled {
            Settled::Sent => state.sent += count,
            Settled::Dropped => state.dropped += count,
        }
    }

    /// Sets the reason why the last request failed. Returns the reason before.
    pub(crate) fn set_error(&self, error: Option<String>) -> Option<String> {
        std::mem::replace(&mut self.state().error, error)
    }

    /// Takes no more runners. [`Queue::next`] returns those that wait.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.added.notify_one();
        self.closing.notify_one();
    }

    /// Waits until the queue is closed.
    pub(crate) async fn closed(&self) {
        while !self.is_closed() {
            self.closing.notified().await;
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Drops every runner that is left.
    pub(crate) fn give_up(&self) {
        let mut state = self.state();
        let left = state.waiting.len() as u64 + state.under_way;
        state.waiting.clear();
        state.under_way = 0;
        state.dropped += left;
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.state();
        Counts {
            sent: state.sent,
            dropped: state.dropped,
            waiting: state.waiting.len() as u64 + state.under_way,
            error: state.error.clone(),
        }
    }
}
