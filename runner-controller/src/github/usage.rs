//! The rate limits and request counts of one client, shared by its layers. Clients of one account share limits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode};

use super::budget::{Budget, Limit, LimitHeaders, Quota, Withheld};
use super::operation::{Operation, Tally};
use super::refusal;
use crate::status::Histogram;
use crate::world::MintWindow;

/// The limits that GitHub announced to the account of a client, and the requests that this client made.
#[derive(Default)]
pub(super) struct Usage {
    /// Shared by all clients of an account.
    budget: Arc<Mutex<Budget>>,
    tally: Mutex<Tally>,
}

impl Usage {
    /// Returns the usage of another client of the same account, which has sent nothing.
    pub(super) fn beside(&self) -> Self {
        Self {
            budget: Arc::clone(&self.budget),
            tally: Mutex::default(),
        }
    }

    /// Returns true if both clients have the same limits.
    pub(super) fn shares_limits(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.budget, &other.budget)
    }

    /// Allows or withholds a request that is about to leave.
    pub(super) fn admit(&self, operation: Operation) -> Result<(), Withheld> {
        self.budget().admit(operation, now())
    }

    /// Withholds every request for this long.
    pub(super) fn hold(&self, wait: Duration) {
        self.budget().hold(wait, now());
    }

    /// Returns the time for which every request is withheld.
    pub(super) fn held(&self) -> Option<Duration> {
        self.budget().held(now())
    }

    /// Counts one request by its outcome.
    pub(super) fn count(&self, operation: Operation, outcome: &'static str) {
        self.tally().count(operation, outcome);
    }

    /// Counts the time from a request until its whole answer.
    pub(super) fn time(&self, operation: Operation, elapsed: Duration) {
        self.tally().time(operation, elapsed);
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
        let budget = &mut self.budget();
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
        self.tally().rows()
    }

    /// Returns the times of the answers so far by operation.
    pub(super) fn answer_times(&self) -> Vec<(&'static str, Histogram)> {
        self.tally().times()
    }

    /// Returns the rate-limit windows as last seen.
    pub(super) fn quotas(&self) -> Vec<Quota> {
        self.budget().quotas(now())
    }

    /// Returns the window of mints as last seen, until its reset.
    pub(super) fn mint_window(&self) -> Option<MintWindow> {
        self.budget().mint_window(now())
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        // Nothing that can panic runs under this lock.
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Nor under this one.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns tokio's time, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
