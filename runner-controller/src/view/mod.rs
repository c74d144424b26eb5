//! The status in words, for every program that shows it to people.
//!
//! `runner-status` prints these words as text, and the daemon serves them as a page.
//!
//! - `health`: the judgement of a host
//! - `notices`: everything beside tables that a reader must know or do
//! - `demand`: the jobs that wait
//! - `cells`: facts about a scope, a pool, a runner or a job, for tables
//! - `span`: durations

mod cells;
mod demand;
mod health;
mod notices;
mod span;

pub use cells::{Ended, Occupation, PoolCounts, failure, job_title, scope_state, server, state};
pub use health::{Health, health};
pub use notices::{Notice, Weight, notices};
pub use span::span;
