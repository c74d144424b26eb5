//! Keeps a warm pool of ephemeral systemd-nspawn containers that each run one GitHub Actions job.

// A closed pipe must not end our programs in a panic; see the crate `stdio`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod atomic_file;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod controller;
pub mod firewall;
pub mod github;
pub mod guest;
pub mod handshake;
pub mod hostfiles;
pub mod http;
pub mod machine;
pub mod manual;
#[cfg(any(test, fuzzing))]
pub mod outside;
pub mod pool;
pub mod privileged;
pub mod readings;
pub mod slot_records;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod terminal;
pub mod world;
