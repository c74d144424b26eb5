//! The core: what a pool is, where each of its runners is in its life, and what to do next.
//!
//! Std only. No clock, no randomness, no I/O, no `await`: `now` and dice are arguments, and nothing
//! here knows GitHub, systemd or files. That is what makes every decision testable by the thousand.

mod names;
mod time;

pub use names::{HostId, InvalidName, PoolName, RunnerName, Slot, SlotId};
pub use time::Timestamp;
