//! Calls and their answers, counted.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;

/// Maximum number of requests that are kept one by one.
const KEPT_REQUESTS: usize = 1000;

/// Calls since the start or the last reset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Number of calls by endpoint and status. A call without an answer counts as `dropped`.
    pub calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// Number of REST calls between the announcement of a limit and its end.
    pub while_limited: u64,
    /// The last 1000 requests, oldest first, without those of the control API.
    pub requests: VecDeque<RequestRecord>,
}

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Time of arrival, unix milliseconds.
    pub at: u64,
    /// `GET`, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Name of the endpoint as in fault rules.
    pub endpoint: String,
    /// Status of the answer; absent if the connection was closed without an answer.
    pub status: Option<u16>,
    /// `X-GitHub-Request-Id` of the answer.
    pub request_id: String,
    /// True if the request had `If-None-Match`.
    pub conditional: bool,
    /// Age in milliseconds of the announcement of a limit that held. A few milliseconds mean that the
    /// call was already on its way.
    pub limited_ms: Option<u64>,
}

impl Stats {
    /// Returns the number of calls of `endpoint`, whatever the answer.
    #[must_use]
    pub fn calls_of(&self, endpoint: &str) -> u64 {
        self.calls.get(endpoint).map_or(0, |by| by.values().sum())
    }

    /// Returns the number of calls of `endpoint` that were answered with `status`.
    #[must_use]
    pub fn answers(&self, endpoint: &str, status: u16) -> u64 {
        self.calls
            .get(endpoint)
            .and_then(|by| by.get(&status.to_string()))
            .copied()
            .unwrap_or(0)
    }

    /// Returns the number of calls of GitHub's REST API. The other calls are the listeners'.
    #[must_use]
    pub fn rest_calls(&self) -> u64 {
        Endpoint::served()
            .filter(|endpoint| endpoint.is_rest())
            .map(|endpoint| self.calls_of(endpoint.name()))
            .sum()
    }

    /// Counts a request.
    pub(crate) fn record(&mut self, request: RequestRecord) {
        let status = request
            .status
            .map_or_else(|| "dropped".into(), |status| status.to_string());
        *self
            .calls
            .entry(request.endpoint.clone())
            .or_default()
            .entry(status)
            .or_default() += 1;
        if self.requests.len() == KEPT_REQUESTS {
            self.requests.pop_front();
        }
        self.requests.push_back(request);
    }
}
