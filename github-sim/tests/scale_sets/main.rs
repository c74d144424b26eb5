//! The service of scale sets, call by call, by a client that knows only the protocol.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod access;
mod acquire;
mod capacity;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod queue;
mod runners;
mod sessions;
mod sets;
