//! Scale sets: their jobs, sessions and message queues, without any connection.
//!
//! A set claims queued jobs up to the capacity that its session advertised last. Each change of a claimed job
//! becomes an item, and the next poll takes the items as one message.

mod access;
mod fill;
mod items;
mod set;
mod sets;

pub(crate) use access::{ServiceToken, ServiceTokenKind};
pub(crate) use items::{acquire_url, available};
pub(crate) use set::{ScaleSet, SetSession};
pub(crate) use sets::{ScaleSetService, ScaleSets, Statistics};
