//! Faults of deliveries.

use serde::{Deserialize, Serialize};

/// A fault and the deliveries that it is injected into. Rules are tried in order; the first that matches and is not
/// used up takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookFaultRule {
    /// Action of the event; all actions when absent.
    #[serde(default)]
    pub action: Option<String>,
    /// Number of times the fault is injected; `null` for always.
    #[serde(default)]
    pub times: Option<u64>,
    /// Number of matching deliveries that pass untouched first.
    #[serde(default)]
    pub skip: u64,
    /// The fault.
    pub fault: WebhookFault,
}

/// A fault of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WebhookFault {
    /// Sent later than its settings say.
    Late {
        /// Milliseconds.
        ms: u64,
    },
    /// Sent twice, with the same `X-GitHub-Delivery`.
    Doubled,
    /// Sent after the hook's next delivery.
    Swapped,
    /// Never made, so it cannot be repeated.
    Lost,
    /// Not sent, and listed as failed.
    Failed,
    /// Sent with other labels than those that were signed.
    Forged,
    /// Signed with another secret.
    WrongSecret,
}

impl WebhookFaultRule {
    /// Returns a rule that injects `fault` into deliveries of `action`, `times` times or always.
    #[must_use]
    pub fn on(action: &str, times: impl Into<Option<u64>>, fault: WebhookFault) -> Self {
        Self {
            action: Some(action.into()),
            times: times.into(),
            skip: 0,
            fault,
        }
    }
}

/// Takes the fault for one delivery.
pub(super) fn take(rules: &mut [WebhookFaultRule], action: &str) -> Option<WebhookFault> {
    for rule in rules {
        let matches = rule.action.as_deref().is_none_or(|want| want == action);
        if !matches || rule.times == Some(0) {
            continue;
        }
        if rule.skip > 0 {
            rule.skip -= 1;
            continue;
        }
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        return Some(rule.fault);
    }
    None
}
