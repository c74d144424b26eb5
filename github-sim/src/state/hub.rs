//! The state behind its lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{GitHubState, StateFile, unix_ms};

/// The state behind its lock, its file, and a signal for each change.
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

struct Inner {
    state: GitHubState,
    /// Present if the state outlives the program.
    file: Option<StateFile>,
}

impl Hub {
    pub(crate) fn new(state: GitHubState, file: Option<StateFile>) -> Self {
        Self {
            inner: Mutex::new(Inner { state, file }),
            changed: watch::Sender::new(0),
        }
    }

    /// Changes the state as it is now, and wakes the tasks that wait for a change.
    pub(crate) fn change<T>(&self, act: impl FnOnce(&mut GitHubState, u64) -> T) -> T {
        let now = unix_ms();
        let mut inner = self.lock();
        inner.state.advance(now);
        let result = act(&mut inner.state, now);
        inner.state.advance(now);
        inner.save();
        drop(inner);
        self.signal();
        result
    }

    /// Reads the state as it is now.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&GitHubState, u64) -> T) -> T {
        let now = unix_ms();
        let mut inner = self.lock();
        let advanced = inner.state.advance(now);
        let result = read(&inner.state, now);
        if advanced {
            inner.save();
        }
        drop(inner);
        if advanced {
            self.signal();
        }
        result
    }

    /// Changes a part of the state that no task waits for.
    pub(crate) fn note<T>(&self, act: impl FnOnce(&mut GitHubState, u64) -> T) -> T {
        let mut inner = self.lock();
        let result = act(&mut inner.state, unix_ms());
        inner.save();
        result
    }

    /// Makes the changes that are due, and wakes the tasks that wait for a change if there were any.
    pub(crate) fn tick(&self) {
        self.read(|_, _| ());
    }

    /// Returns a receiver that is notified of every change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn signal(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock is a defect that its own test reports; other tests can go on with
        // the state as it is.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Writes the changes to the state file.
    fn save(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write(&self.state)
        {
            tracing::error!(%error, "cannot write the state file");
        }
    }
}
