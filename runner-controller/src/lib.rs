//! Keeps a warm pool of ephemeral systemd-nspawn containers that each run one GitHub Actions job.

pub mod config;
pub mod guest;
pub mod hostfiles;
pub mod launch;
pub mod pool;
pub mod world;
