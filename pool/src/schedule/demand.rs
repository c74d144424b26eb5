//! The authority for the demand of a pool.

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

/// Authority that tells how many runners of a pool should listen.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Demand {
    /// The configuration alone: always `min_idle`.
    #[default]
    Fixed,
    /// The jobs that wait by GitHub's deliveries, besides `min_idle`.
    Webhook,
    /// The jobs that wait by readings of a repository's queue, besides `min_idle`.
    Queue,
    /// The jobs that GitHub assigns to the pool's scale set, besides `min_idle`.
    #[strum(serialize = "scale-set")]
    #[serde(rename = "scale-set")]
    ScaleSet,
}

impl Demand {
    /// Returns true if the number of runners follows the jobs that wait.
    #[must_use]
    pub fn follows_jobs(self) -> bool {
        match self {
            Self::Fixed => false,
            Self::Webhook | Self::Queue | Self::ScaleSet => true,
        }
    }
}
