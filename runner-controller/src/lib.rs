//! Keeps a warm pool of ephemeral systemd-nspawn containers that each run one GitHub Actions job.

pub mod clock;
pub mod config;
pub mod controller;
pub mod guest;
pub mod hostfiles;
pub mod launch;
pub mod pool;
pub mod status;
pub mod world;
