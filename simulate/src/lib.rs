//! The real controller and the real GitHub client over a simulated host, disk and GitHub: one seed
//! is one history, and a history that breaks a rule can be played again.

pub mod books;
pub mod clock;
pub mod daemon;
pub mod disk;
pub mod github;
pub mod guest;
pub mod history;
pub mod host;
pub mod limits;
pub mod mutation;
pub mod plan;
pub mod rng;
pub mod rule;
pub mod sockets;
pub mod weather;
pub mod wire;
pub mod world;
