//! Keeps a warm pool of ephemeral systemd-nspawn containers that each run one GitHub Actions job.
//!
//! One program has three kinds of processes: the daemon, which has no privilege; the programs that systemd
//! runs as root for a slot and for the firewall; and the commands of an operator.
//!
//! # Modules
//!
//! - [`pool`] is the core. It decides everything, and it has no clock, no randomness and no I/O.
//! - [`controller`] is the daemon's loop: it applies events to the pools and carries out the effects.
//! - [`world`] has the traits between the loop and everything outside. `machine` implements them for systemd,
//!   `handshake` for the sockets of slots, [`github`] for GitHub, and `store` for the records on disk.
//! - [`privileged`] and [`firewall`] are everything that runs as root.
//! - [`config`] reads the configuration and computes the place of each slot. [`hostfiles`] and [`guest`] render
//!   files from it, for the host and for an image.
//! - [`status`] is the status document, [`view`] its words for people, and [`http`] the API and the page that show
//!   it. [`webhook`] takes GitHub's deliveries, [`redelivery`] asks for those that failed, [`queue`] reads jobs from its API,
//!   and [`scale_set`] has the scale sets.
//! - `notify` tells a command of events. [`sizing`] predicts how long jobs wait on a host.
//! - [`cli`] and [`commands`] are the command line. `commands::run` assembles the daemon. [`manual`] makes the
//!   manual pages.
//!
//! # Tasks and channels of the daemon
//!
//! ```text
//!  systemd's signals ──┐                        ┌─▶ a task for each call to systemd, GitHub or the records
//!  sockets of slots ───┼─ mpsc of events ─▶ loop┤       └─ its outcome ─▶ loop
//!  operators (API) ────┘  mpsc of requests      └─▶ watch channel with the status ─▶ API
//! ```
//!
//! - The loop owns the pools and awaits nothing slow. No lock is shared with it.
//! - One task watches systemd and reconnects to the bus. One task accepts at the sockets of slots.
//! - The store has a thread, because its database blocks. Writes reach it in their order.
//! - Each connection to the API has a task. It reads the watch channel, and sends commands as requests.
//! - One task for each scope reads jobs from GitHub's API, if the host knows which jobs wait. It puts them on record and
//!   sends events, too.
//! - One task for each scale set has its session, and does the same. The loop tells it by a watch channel how many jobs
//!   the pool can have.
//! - One task looks at the status for events, if a command is told of them.
//! - One task sends the traces of runners that ended, if a collector gets them. Its queue is bounded.
//! - Each delivery of GitHub has a task. It puts the job on record, answers, and sends the job to the loop as an event.

// A closed pipe must not end our programs in a panic; see the crate `stdio`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod atomic_file;
pub mod cli;
mod clock;
pub mod commands;
pub mod config;
pub mod controller;
pub mod firewall;
pub mod github;
pub mod guest;
mod handshake;
pub mod hostfiles;
pub mod http;
mod log_bundles;
mod machine;
pub mod manual;
mod notify;
#[cfg(any(test, fuzzing))]
pub mod outside;
pub use pool;
pub mod privileged;
pub mod queue;
mod readings;
mod redact;
pub mod redelivery;
pub mod scale_set;
pub mod sizing;
mod slot_records;
pub use status;
mod store;
mod telemetry;
mod terminal;
pub mod view;
pub mod webhook;
mod workflow_job;
pub mod world;
