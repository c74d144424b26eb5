//! Reasons why the firewall is not, or may not be, as configured.

use std::io;

/// Reason why the table is not, or may not be, as configured.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The table is missing or differs.
    #[error("{0}")]
    Table(String),
    /// The host does not forward the packets of runners.
    #[error(transparent)]
    Forwarding(#[from] Obstacle),
    /// nft did not take a command.
    #[error("nft refuses {what}: {said}")]
    Refused {
        /// Command in words.
        what: &'static str,
        /// First line that nft wrote.
        said: String,
    },
    /// An operation of the system failed.
    #[error("cannot {operation}")]
    Io {
        /// Operation and object.
        operation: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl FirewallError {
    pub(super) fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Io { operation, source }
    }
}

/// Reason for which this host does not forward the packets of runners.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{wrong}; {remedy}")]
pub struct Obstacle {
    /// The problem.
    pub wrong: String,
    /// Steps to take.
    pub remedy: String,
}
