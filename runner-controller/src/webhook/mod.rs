//! GitHub's deliveries of `workflow_job`: a listener of their own.
//!
//! The listener believes a delivery only if its signature fits the raw bytes, and answers 202 only after the
//! delivery and its effect are on record. Then the job goes to the controller as an event. Nothing starts here.
//!
//! - `secrets`: the secrets of the hook, and signatures
//! - `delivery`: what a delivery tells
//! - `routes`: requests and answers
//! - `counts`: deliveries by outcome
//! - `sample`, `send`: a delivery by which an operator tests the hook

#[cfg(any(test, fuzzing))]
mod checks;
mod counts;
mod delivery;
mod routes;
mod sample;
mod secrets;
mod send;

use std::time::Duration;

#[cfg(any(test, fuzzing))]
pub(crate) use checks::try_delivery;
pub use counts::{Counts, report};
pub use routes::{Receiver, router};
pub use sample::{Sample, SampleError};
pub use secrets::{SecretError, Secrets};
pub use send::{Answer, SendError, send};

use crate::http::ListenerLimits;

/// Returns the bounds of the listener. GitHub itself gives up after 10 seconds.
#[must_use]
pub fn limits() -> ListenerLimits {
    ListenerLimits {
        connections: 64,
        head: Duration::from_secs(5),
        whole: Duration::from_secs(10),
    }
}

#[cfg(test)]
mod tests;
