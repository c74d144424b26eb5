//! The protocol of GitHub's listener, call by call: a test for each row of its table, and for each edge.
//!
//! These tests speak the protocol themselves, so they hold the wire and not the stand-in listener.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod calls;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod results;
