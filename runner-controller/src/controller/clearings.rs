//! The clearings that operators requested, each with a number.
//!
//! Two clean-ups may run at once. The first one that is done lets the pools refill, so the state of the
//! daemon alone does not tell the second one that its clearing is done.

use crate::pool::Mode;
use crate::status::{ClearingStatus, DaemonState};

/// The clearings of one daemon. A client chooses the number: the milliseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Clearings {
    requested: u64,
    done: u64,
    /// Start of this daemon, if an earlier one was clearing: every clearing of that one has a smaller number.
    restored: u64,
}

impl Clearings {
    /// Takes over the clearings of an earlier daemon.
    pub(super) fn restore(&mut self, unix_ms: u64) {
        self.restored = unix_ms;
    }

    pub(super) fn request(&mut self, number: u64) {
        self.requested = self.requested.max(number);
    }

    /// Returns true if this daemon got no request with a larger number.
    pub(super) fn is_newest(&self, number: u64) -> bool {
        number >= self.requested
    }

    /// Notes the state of the daemon, which ends every requested clearing if no runner is left.
    pub(super) fn observe(&mut self, state: DaemonState) {
        if state == DaemonState::Cleared {
            self.done = self.requested.max(self.restored);
        }
    }

    pub(super) fn status(&self, mode: Mode) -> ClearingStatus {
        ClearingStatus {
            requested: self.requested,
            done: self.done,
            refills: mode == Mode::ClearingToRefill,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clearing_of_an_earlier_daemon_is_done_when_no_runner_is_left() {
        let mut clearings = Clearings::default();
        clearings.restore(70);
        clearings.observe(DaemonState::Clearing);
        assert_eq!(clearings.status(Mode::Clearing).done, 0);
        clearings.observe(DaemonState::Cleared);
        assert_eq!(clearings.status(Mode::Clearing).done, 70);
        assert!(clearings.is_newest(60), "its command lets the pools refill");
    }
}
