//! Which calls came, and what they were answered.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Requests that are remembered one by one.
const KEPT_REQUESTS: usize = 1000;

/// Calls since the start or the last reset.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Endpoint → status → calls. A call that got no answer counts under `dropped`.
    pub calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// REST calls that came after a limit was announced and before it ended.
    pub while_limited: u64,
    /// The last 1000 requests, oldest first. The control API's own are left out.
    pub requests: VecDeque<RequestRecord>,
}

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestRecord {
    /// When it came, unix milliseconds.
    pub at: u64,
    /// `GET`, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Name of the endpoint, as in fault rules.
    pub endpoint: String,
    /// Status of the answer; none if the connection was closed without one.
    pub status: Option<u16>,
    /// `X-GitHub-Request-Id` of the answer.
    pub request_id: String,
    /// Whether it carried `If-None-Match`.
    pub conditional: bool,
    /// If it came while a limit held: for how long that had been announced, in milliseconds. A few are
    /// a call that was on its way.
    pub limited_ms: Option<u64>,
}

impl Stats {
    /// How many calls of `endpoint` there were, whatever the answer.
    #[must_use]
    pub fn calls_of(&self, endpoint: &str) -> u64 {
        self.calls.get(endpoint).map_or(0, |by| by.values().sum())
    }

    /// How many calls of `endpoint` were answered with `status`.
    #[must_use]
    pub fn answers(&self, endpoint: &str, status: u16) -> u64 {
        self.calls
            .get(endpoint)
            .and_then(|by| by.get(&status.to_string()))
            .copied()
            .unwrap_or(0)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) stats: Stats,
}

impl Recorder {
    pub(crate) fn record(&mut self, request: RequestRecord) {
        let status = request
            .status
            .map_or_else(|| "dropped".into(), |status| status.to_string());
        *self
            .stats
            .calls
            .entry(request.endpoint.clone())
            .or_default()
            .entry(status)
            .or_default() += 1;
        if self.stats.requests.len() == KEPT_REQUESTS {
            self.stats.requests.pop_front();
        }
        self.stats.requests.push_back(request);
    }
}
