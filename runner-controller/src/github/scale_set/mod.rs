//! [`ScaleSets`](crate::world::ScaleSets) over the service that GitHub's own clients use, which has no documentation.
//! The reference is GitHub's Go client (github.com/actions/scaleset).
//!
//! - `admin` has the access to the service: its address, and a token that lives for minutes.
//! - `wire` sends one request, `refused` tells what its failure means.
//! - `messages` reads messages of a queue.
//! - `calls` has the calls.

mod admin;
mod calls;
mod messages;
mod refused;
mod wire;

pub use calls::{ScaleSetService, Session};
#[cfg(any(test, fuzzing))]
pub(crate) use messages::try_message;
