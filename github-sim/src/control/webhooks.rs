//! The part of the control API that concerns webhooks.

use super::Control;
use crate::webhooks::{DeliveryView, HookSpec, Sender, WebhookFaultRule};

#[expect(
    clippy::must_use_candidate,
    reason = "a test often ignores the result of a change"
)]
impl Control {
    /// Adds a hook, which gets a `ping`, and returns its id.
    pub fn add_hook(&self, spec: HookSpec) -> u64 {
        self.hub.change(|state, now| {
            let sender = Sender {
                public_url: &state.public_url,
                settings: &state.settings,
                app: state.app.as_ref().map(|app| app.id),
                scopes: &state.scopes,
            };
            state.webhooks.add(&sender, spec, now)
        })
    }

    /// Removes a hook. Returns `false` if it does not exist.
    pub fn remove_hook(&self, id: u64) -> bool {
        self.hub.change(|state, _| state.webhooks.remove(id))
    }

    /// Returns all deliveries since the start, oldest first, also those that were not sent yet.
    pub fn deliveries(&self) -> Vec<DeliveryView> {
        let view = DeliveryView::of;
        self.hub
            .read(|state, _| state.webhooks.deliveries().map(view).collect())
    }

    /// Adds fault rules for deliveries after those in force.
    pub fn add_webhook_faults(&self, rules: impl IntoIterator<Item = WebhookFaultRule>) {
        self.hub
            .change(|state, _| state.webhooks.rules.extend(rules));
    }

    /// Returns the fault rules of deliveries, with what is left of `skip` and `times`.
    pub fn webhook_faults(&self) -> Vec<WebhookFaultRule> {
        self.hub.read(|state, _| state.webhooks.rules.clone())
    }

    /// Removes all fault rules of deliveries.
    pub fn clear_webhook_faults(&self) {
        self.hub.change(|state, _| state.webhooks.rules.clear());
    }
}
