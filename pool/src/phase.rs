//! The names of the phases of a runner.

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

/// A phase without its details, as status, metrics and records name it.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PhaseKind {
    /// Its unit starts, and its container has not asked for a JIT config.
    Booting,
    /// It waits for a JIT config.
    Spare,
    /// Its JIT config is being minted.
    Minting,
    /// It got its JIT config, and GitHub has not shown it online.
    Registering,
    /// It waits for a job.
    Idle,
    /// It runs its job.
    Busy,
    /// It is being ended.
    Retiring,
}

impl PhaseKind {
    /// All phases, in the order in which a runner passes through them.
    pub const ALL: &'static [Self] = Self::VARIANTS;
}
