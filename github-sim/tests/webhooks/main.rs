//! Webhook deliveries, as a receiver sees them, and their list in the REST API.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod api;
#[path = "../common/mod.rs"]
mod common;
mod deliveries;
mod faults;
mod receiver;
