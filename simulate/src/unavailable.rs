//! The error of a port that works again later.

use runner_controller::world::Failure;

/// A call that failed for a reason that passes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unavailable(pub(crate) &'static str);

impl Failure for Unavailable {
    fn is_transient(&self) -> bool {
        true
    }
}
