//! The firewall of the runners: one nftables table, the process that owns it, the check of the loaded
//! table, and the report that tells the daemon about it.
//!
//! - `rules` renders the table from the configuration and from what is [`loaded`] for pools that the
//!   configuration no longer has.
//! - `owner` is the root service that loads and changes the table. The kernel refuses to let another
//!   program flush or delete a table that has an owner.
//! - `forwarding` finds out whether the host forwards a runner's packets. `foreign` follows a packet through the
//!   rules of other programs.
//! - `check` compares the loaded table with the rules, for the owner and before each start. `ruleset` tells whether any
//!   rule of the host has changed since, and `netfilter` asks the kernel.
//! - `units` renders the unit of the owner.
//! - `report` carries the result from root to the daemon.

mod chains;
mod check;
mod error;
mod foreign;
mod forwarding;
mod loaded;
pub(crate) mod netfilter;
mod nft;
mod owner;
mod report;
mod rules;
mod ruleset;
mod units;

use std::time::Duration;

pub use check::{Check, check, difference, inspect};
pub use error::{FirewallError, Obstacle};
pub use forwarding::{obstacle, switched_off};
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
