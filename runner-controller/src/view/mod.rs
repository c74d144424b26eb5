//! The status in words, for every program that shows it to people.
//!
//! `runner-status` prints these words as text, and the daemon serves them as a page.
//!
//! - `health`: the judgement of a host
//! - `notice`: one sentence and its weight
//! - `notices`: everything beside tables that a reader must know or do
//! - `demand`: the jobs that wait
//! - `budget`: the use of the host's budget
//! - `cells`: facts about a scope, a pool, a runner or a job, for tables
//! - `span`: durations
//! - `version`: the versions of the runners

mod budget;
mod cells;
mod demand;
mod health;
mod notice;
mod notices;
mod span;
mod version;

pub use budget::budget_share;
pub use cells::{Ended, Occupation, PoolCounts, failure, job_title, scope_state, server, state};
pub use demand::signatures;
pub use health::{Health, health};
pub use notice::{Notice, Weight};
pub use notices::notices;
pub use span::span;
pub use version::{version_problem, versions};
