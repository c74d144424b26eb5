//! One delivery: what is sent, and what became of it.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// A delivery of an event to a hook.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) id: u64,
    pub(crate) hook: u64,
    /// Value of `X-GitHub-Delivery`, the same in each repetition.
    pub(crate) guid: String,
    pub(crate) event: String,
    pub(crate) action: Option<String>,
    pub(crate) repository: Option<u64>,
    pub(crate) installation: Option<u64>,
    pub(crate) body: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) redelivery: bool,
    /// Time from which it may be sent, unix milliseconds.
    pub(crate) due: u64,
    /// Keeps the delivery until a later one of its hook was sent.
    pub(crate) after_next: bool,
    pub(crate) attempt: Option<Attempt>,
    /// True while the delivery is on its way, which ends with the program.
    #[serde(skip)]
    pub(crate) in_flight: bool,
}

/// Result of a delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// Unix milliseconds.
    pub(crate) at: u64,
    pub(crate) duration_ms: u64,
    /// `OK`, or what failed.
    pub(crate) status: String,
    /// 0 without an answer.
    pub(crate) code: u16,
    pub(crate) response: String,
}

impl Attempt {
    pub(crate) fn succeeded(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// A delivery as the control API shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryView {
    /// Id.
    pub id: u64,
    /// Hook.
    pub hook: u64,
    /// Value of `X-GitHub-Delivery`.
    pub guid: String,
    /// Name of the event.
    pub event: String,
    /// Action of the event.
    pub action: Option<String>,
    /// True for a repetition.
    pub redelivery: bool,
    /// HTTP status of the answer, 0 without one; absent before the delivery was sent.
    pub code: Option<u16>,
}

impl DeliveryView {
    pub(crate) fn of(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id,
            hook: delivery.hook,
            guid: delivery.guid.clone(),
            event: delivery.event.clone(),
            action: delivery.action.clone(),
            redelivery: delivery.redelivery,
            code: delivery.attempt.as_ref().map(|attempt| attempt.code),
        }
    }
}

/// Returns the value of `X-Hub-Signature-256`: HMAC-SHA256 of the body as it is sent.
#[must_use]
pub fn signature(secret: &str, body: &str) -> Option<String> {
    // A key of any length is valid.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(body.as_bytes());
    Some(format!(
        "sha256={}",
        hex::encode(mac.finalize().into_bytes())
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_signature_is_that_of_the_documentation() {
        // https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
        assert_eq!(
            super::signature("It's a Secret to Everybody", "Hello, World!").unwrap(),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }
}
