//! The HTTP API: health, status, metrics and operators' commands.
//!
//! GET requests read the status from one watch channel and change nothing. POST requests are commands
//! for the controller. On the Unix socket, the kernel's peer credentials decide who may send them; the
//! socket's group and mode decide who may connect at all. TCP addresses are read-only unless a token
//! is configured.
//!
//! - `serve`: listeners and their bounds
//! - `access`: peers and the token
//! - `routes`: requests and answers
//! - `metrics`, `demand_metrics`, `measures`: the status, counted
//! - `page`: the status for a browser
//! - [`client`]: requests of our own commands

mod access;
#[cfg(any(test, fuzzing))]
mod checks;
pub mod client;
mod demand_metrics;
mod measures;
mod metric_families;
mod metrics;
mod page;
mod routes;
mod serve;
#[cfg(test)]
mod sockets;

pub use access::{Access, ApiToken, ApiTokenError, Peer};
#[cfg(any(test, fuzzing))]
pub(crate) use checks::{try_metrics, try_request};
pub use routes::{ReadHistory, router};
pub use serve::{ListenerLimits, serve_tcp, serve_unix};
