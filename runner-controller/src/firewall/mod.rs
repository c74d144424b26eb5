//! The firewall of the runners: one nftables table, the process that owns it, the check of the loaded
//! table, and the report that tells the daemon about it.
//!
//! - `rules` renders the table from the configuration and from what is [`loaded`] for pools that the
//!   configuration no longer has.
//! - `owner` is the root service that loads and changes the table. The kernel refuses to let another
//!   program flush or delete a table that has an owner.
//! - `forwarding` finds out whether the host forwards a runner's packets. `foreign` follows a packet through the
//!   rules of other programs.
//! - `check` compares the loaded table with the rules, for the owner and before each start.
//! - `units` renders the unit of the owner.
//! - `report` carries the result from root to the daemon.

mod chains;
mod check;
mod foreign;
mod forwarding;
mod loaded;
mod nft;
mod owner;
mod report;
mod rules;
mod units;

use std::io;
use std::time::Duration;

pub use check::{Check, check, difference};
pub use forwarding::{Obstacle, obstacle};
pub use loaded::Loaded;
pub use owner::own;
pub use report::{event, watch};
pub(crate) use units::files;

/// Name of the nftables table, family `inet`.
pub const TABLE: &str = "runner_controller";

/// Unit of the process that owns the table.
pub const FIREWALL_UNIT: &str = "runner-controller-firewall.service";

/// Interval between two checks.
pub const CHECK_EVERY: Duration = Duration::from_secs(15);

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
    fn io(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Io { operation, source }
    }
}
