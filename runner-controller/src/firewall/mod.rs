//! The firewall of the runners' links.
//!
//! - `rules`: one nftables table for all pools, rendered from the configuration
//! - `units`: the units that load and check it
//! - `check`: root compares the loaded table with the rules, and writes a report
//! - `report`: the daemon reads the report, and closes admission while it is bad or old

mod check;
mod report;
mod rules;
mod units;

pub(crate) use check::PendingCheck;
pub use check::check_firewall;
#[cfg(any(test, fuzzing))]
pub(crate) use check::difference;
pub use report::{event, watch};
pub(crate) use rules::FIREWALL_UNIT;
pub(crate) use units::{CHECK_TIMER, files};
