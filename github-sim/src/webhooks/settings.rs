//! Settings of webhook deliveries.

use serde::{Deserialize, Serialize};

/// Times of deliveries. They are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookSettings {
    /// Times from an event to its delivery. Each delivery takes one of them at random.
    pub delay_ms: Vec<u64>,
    /// Timeout for the receiver's answer (GitHub: 10 s).
    pub timeout_ms: u64,
    /// Time that a delivery can be listed and repeated (GitHub: 3 days).
    pub retention_ms: u64,
}

impl WebhookSettings {
    /// Returns delays with the distribution that an operator published for GitHub: a median of 2 s, 90 % within
    /// 3 s, 95 % within 150 s, and a mean of minutes (carbonrunner.io/stats).
    #[must_use]
    pub fn measured_delays_ms() -> Vec<u64> {
        let mut delays = vec![2_000; 10];
        delays.extend([3_000; 8]);
        delays.extend([150_000, 15_000_000]);
        delays
    }
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            delay_ms: vec![0],
            timeout_ms: 10_000,
            retention_ms: 259_200_000,
        }
    }
}
