//! Webhooks: hooks, and the deliveries that jobs cause, without any connection.

mod delivery;
mod fault;
mod hook;
mod hooks;
mod payload;
mod settings;

pub(crate) use delivery::{Attempt, Delivery};
pub use delivery::{DeliveryView, signature};
pub use fault::{WebhookFault, WebhookFaultRule};
pub use hook::{HookSpec, HookTarget};
pub(crate) use hooks::{Outgoing, Webhooks};
pub(crate) use payload::Sender;
pub use settings::WebhookSettings;
