//! Keeps a warm pool of ephemeral systemd-nspawn containers that each run one GitHub Actions job.

pub mod config;
pub mod github;
pub mod pool;
pub mod store;
pub mod world;
