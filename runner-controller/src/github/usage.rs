//! The rate limits and request counts of one client, shared by its layers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode};

use super::budget::{Budget, Limit, LimitHeaders, Quota, Withheld};
use super::operation::{Operation, Tally};
use super::refusal;
use crate::world::MintWindow;

/// The limits that GitHub announced to one client, and the requests that this client made.
#[derive(Default)]
pub(super) struct Usage(Mutex<State>);

#[derive(Default)]
struct State {
    budget: Budget,
    tally: Tally,
}

impl Usage {
    /// Allows or withholds a request that is about to leave.
    pub(super) fn admit(&self, operation: Operation) -> Result<(), Withheld> {
        self.state().budget.admit(operation, now())
    }

    /// Withholds every request for this long.
    pub(super) fn hold(&self, wait: Duration) {
        self.state().budget.hold(wait, now());
    }

    /// Counts one request by its outcome.
    pub(super) fn count(&self, operation: Operation, outcome: &'static str) {
        self.state().tally.count(operation, outcome);
    }

    /// Records the limits that an answer announces. Returns how long to send nothing, if the answer
    /// is a refusal for a limit.
    pub(super) fn observe(
        &self,
        operation: Operation,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Option<Duration> {
        let limits = LimitHeaders::read(headers, SystemTime::now());
        let limit = refusal::limit_of(status, &limits, body);
        if operation.is_of_app() && limit == Limit::None {
            // An App's windows are not those of its installation, which is what the budget follows.
            return None;
        }
        let budget = &mut self.state().budget;
        match limit {
            // Only a call that was carried out shows that the client is not too fast any more.
            Limit::None if !status.is_success() && status != StatusCode::NOT_MODIFIED => {
                budget.observe_refusal(operation, &limits, now());
                None
            }
            Limit::None | Limit::Primary | Limit::Secondary => {
                budget.observe(operation, &limits, limit, now())
            }
        }
    }

    /// Returns the requests so far by operation and outcome.
    pub(super) fn calls(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.state().tally.rows()
    }

    /// Returns the rate-limit windows as last seen.
    pub(super) fn quotas(&self) -> Vec<Quota> {
        self.state().budget.quotas(now())
    }

    /// Returns the window of mints as last seen, until its reset.
    pub(super) fn mint_window(&self) -> Option<MintWindow> {
        self.state().budget.mint_window(now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns tokio's time, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
