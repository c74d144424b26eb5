//! The plan: the numbers of runners that the daemon works towards, and the use of the host's budget.

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

/// Numbers of runners that a pool should have now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Runners that listen.
    pub listeners: u64,
    /// Spares.
    pub spares: u64,
    /// Containers that may start now, before the limit of boots at once.
    pub starts: u64,
    /// Runners without a job that end, because a waiting job of another pool needs their room.
    pub preempted: u64,
}

/// Resource of the budget.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BudgetResource {
    /// Memory, in bytes.
    MemoryBytes,
    /// Processors, in thousandths of a core.
    Millicores,
    /// Runners.
    Runners,
}

/// Use of a resource of the budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetUse {
    /// Amount that all runners take.
    pub used: u64,
    /// Maximum.
    pub max: u64,
}
