//! Changes that systemd signalled and that were not sent yet. Bounded by the number of slots.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::signal::Signal;
use crate::pool::SlotId;
use crate::world::{Invocation, UnitState};

/// State of a slot's unit and the invocation that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotState {
    pub(super) state: UnitState,
    pub(super) invocation: Option<Invocation>,
}

/// Change of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SlotChange {
    /// Newest state that a signal had; `None` if systemd must be asked.
    pub(super) signalled: Option<SlotState>,
    /// True if the state is sent even if it was sent before.
    pub(super) repeat: bool,
}

/// Changes of all slots.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) slots: BTreeMap<SlotId, SlotChange>,
    /// True if every unit must be observed.
    pub(super) all: bool,
    /// True if the state of every slot is sent even if it was sent before: a runner may have started
    /// and ended meanwhile.
    pub(super) repeat: bool,
    /// True if systemd has lost the subscription.
    pub(super) resubscribe: bool,
}

impl Changes {
    /// Adds a signal.
    pub(super) fn add(&mut self, signal: Signal) {
        match signal {
            Signal::Unit {
                slot,
                state,
                invocation,
            } => {
                let state = SlotState { state, invocation };
                self.slots.entry(slot).or_default().signalled = Some(state);
            }
            // systemd unloads a unit right after its end, and the last state has more information
            // than "unloaded". In every other state this is a reload, which loads the unit again, so
            // only systemd knows its state.
            Signal::Unloaded(slot) => {
                let change = self.slots.entry(slot).or_default();
                let has_ended = change
                    .signalled
                    .as_ref()
                    .is_some_and(|last| last.state == UnitState::Inactive);
                if !has_ended {
                    change.signalled = None;
                }
            }
            Signal::JobFailed { slot, result } => {
                tracing::warn!(%slot, result, "{slot}: a job of systemd for the unit failed: {result}");
                // The unit may not have changed at all, and the controller waits for its start.
                let change = SlotChange {
                    signalled: None,
                    repeat: true,
                };
                self.slots.insert(slot, change);
            }
            Signal::Reloaded => self.all = true,
            Signal::Appeared => {
                self.all = true;
                self.repeat = true;
                self.resubscribe = true;
            }
        }
    }
}

/// Changes that the reader of signals adds and the sender of events takes.
#[derive(Debug, Default)]
pub(super) struct Pending {
    changes: Mutex<Changes>,
    wake: Notify,
}

impl Pending {
    /// Returns pending changes that begin with an observation of every unit.
    pub(super) fn everything() -> Self {
        let pending = Self::default();
        {
            let mut changes = pending.changes();
            changes.all = true;
            changes.repeat = true;
        }
        pending.wake.notify_one();
        pending
    }

    pub(super) fn add(&self, signal: Signal) {
        self.changes().add(signal);
        self.wake.notify_one();
    }

    /// Waits for changes and takes them.
    pub(super) async fn take(&self) -> Changes {
        self.wake.notified().await;
        std::mem::take(&mut *self.changes())
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        // No holder of the lock can panic half-way.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> SlotId {
        "ci-3".parse().unwrap()
    }

    fn unit(state: UnitState) -> Signal {
        Signal::Unit {
            slot: slot(),
            state,
            invocation: Invocation::parse(&"a".repeat(32)),
        }
    }

    fn change(signals: Vec<Signal>) -> SlotChange {
        let mut changes = Changes::default();
        for signal in signals {
            changes.add(signal);
        }
        changes.slots.remove(&slot()).unwrap()
    }

    #[test]
    fn the_newest_state_replaces_older_ones() {
        let change = change(vec![unit(UnitState::Activating), unit(UnitState::Active)]);
        assert_eq!(change.signalled.unwrap().state, UnitState::Active);
    }

    #[test]
    fn an_end_is_kept_when_the_unit_is_unloaded_after_it() {
        let change = change(vec![unit(UnitState::Inactive), Signal::Unloaded(slot())]);
        assert_eq!(change.signalled.unwrap().state, UnitState::Inactive);
    }

    #[test]
    fn a_reload_does_not_end_a_running_unit() {
        let change = change(vec![unit(UnitState::Active), Signal::Unloaded(slot())]);
        assert_eq!(change, SlotChange::default());
    }

    #[test]
    fn a_failed_start_job_is_sent_even_if_the_unit_never_changed() {
        let change = change(vec![Signal::JobFailed {
            slot: slot(),
            result: "dependency".into(),
        }]);
        assert!(change.repeat && change.signalled.is_none());
    }

    #[test]
    fn a_new_systemd_is_subscribed_to_and_observed() {
        let mut changes = Changes::default();
        changes.add(Signal::Appeared);
        assert!(changes.all && changes.repeat && changes.resubscribe);
    }
}
