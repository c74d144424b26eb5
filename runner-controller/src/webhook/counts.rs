//! Deliveries by outcome, and their way to the controller.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::status::{DeliveryOutcome, WebhookStatus};
use crate::world::Event;

/// Interval between two reports. A flood of forged deliveries must not fill the controller's events.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Number of deliveries by outcome. Clones share it.
#[derive(Debug, Clone)]
pub struct Counts(watch::Sender<WebhookStatus>);

impl Default for Counts {
    fn default() -> Self {
        Self(watch::Sender::new(WebhookStatus::default()))
    }
}

impl Counts {
    /// Counts a delivery. `signed_unix_ms` is the time if its signature was right.
    pub(super) fn add(&self, outcome: DeliveryOutcome, signed_unix_ms: Option<u64>) {
        self.0.send_modify(|status| {
            *status.deliveries.entry(outcome).or_default() += 1;
            // GitHub pings a new hook, and `doctor` pings the listener. Neither shows that jobs are told of.
            if outcome != DeliveryOutcome::Ping {
                status.last_unix_ms = status.last_unix_ms.max(signed_unix_ms);
            }
        });
    }

    /// Returns a receiver of the counts.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<WebhookStatus> {
        self.0.subscribe()
    }
}

/// Reports changed counts to the controller, once a second at most, until it has ended.
pub async fn report(mut counts: watch::Receiver<WebhookStatus>, events: mpsc::Sender<Event>) {
    while counts.changed().await.is_ok() {
        let status = counts.borrow_and_update().clone();
        if events.send(Event::Deliveries(status)).await.is_err() {
            return;
        }
        tokio::time::sleep(REPORT_INTERVAL).await;
    }
}
