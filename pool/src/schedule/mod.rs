//! The schedule: the number of runners that each pool should have now, and the reason why it is not higher.
//!
//! - `budget`: the resources of the host that runners may take together
//! - `hosts`: the schedule of a host, and the targets of its pools
//! - `demand`: the authority for the demand of a pool
//! - `order`: priorities, and the order in which waiting jobs have their turns
//! - `supply`: the numbers that a pool wants and has, for the schedule
//! - `decide`: the schedule of all pools
//! - `probe`: a runner that finds out whether a silent scale set has jobs after all
//! - `target`: the numbers that the plan of one pool works towards
//! - `follow`: a pool that follows its target
//! - `taken`: the waiting jobs that runners of this host have already, although no event told it, and the reverse

mod budget;
mod decide;
mod demand;
mod follow;
mod hosts;
mod order;
mod probe;
mod supply;
mod taken;
mod target;

pub use budget::{Budget, Cost};
pub use decide::{Jobs, Schedule, schedule};
pub use demand::Demand;
pub use order::{DEFAULT_FAIRNESS_AGE, DEFAULT_RESERVE_AFTER, Glob, OrderRules, Priority};
pub use supply::PoolSupply;
pub use target::{DEFAULT_SCALE_DOWN_AFTER, Target};

pub(crate) use order::Rank;
pub(crate) use probe::Silence;
pub(crate) use target::Kept;

#[cfg(test)]
mod tests;
