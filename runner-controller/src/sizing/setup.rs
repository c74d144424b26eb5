//! The hosts of a simulation.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::pool::{Numbers, PoolName};

/// Time before the first job, in which the pools reach their numbers, in milliseconds.
pub(super) const WARM_UP_MS: u64 = 600_000;

/// The hosts of a simulation.
#[derive(Debug, Clone)]
pub struct Setup<'c> {
    /// Configuration of each host.
    pub config: &'c Config,
    /// Number of hosts.
    pub hosts: usize,
    /// Cores of each, which is the number of containers that boot at once.
    pub cores: u16,
    /// Memory of each. Without it, only the budget bounds what jobs use.
    pub memory_bytes: Option<u64>,
    /// Numbers of pools in place of those of the configuration.
    pub numbers: BTreeMap<PoolName, Numbers>,
    /// True if the budget of the configuration holds.
    pub has_budget: bool,
    /// Seed of the random numbers.
    pub seed: u64,
}
