//! Steps of a plan.

use super::names::Slot;
use super::observation::RunnerId;
use super::runner::Cause;

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Start the slot's unit.
    Start {
        /// The slot.
        slot: Slot,
    },
    /// Mint a JIT config and hand it to the spare.
    Register {
        /// The slot.
        slot: Slot,
    },
    /// Begin to end a runner.
    Retire {
        /// The slot.
        slot: Slot,
        /// The reason.
        cause: Cause,
    },
    /// Delete the runner's registration. The runner ends only if GitHub agrees.
    Deregister {
        /// The slot.
        slot: Slot,
        /// GitHub's id of the runner.
        id: RunnerId,
    },
    /// Ask GitHub for the runner's registration, which its lists do not have. The runner ends only if
    /// GitHub does not have it either.
    Find {
        /// The slot.
        slot: Slot,
        /// GitHub's id of the runner.
        id: RunnerId,
    },
    /// End the slot's unit.
    End {
        /// The slot.
        slot: Slot,
        /// The way in which it ends.
        how: Ending,
    },
}

impl Step {
    /// Returns the slot of the step.
    #[must_use]
    pub fn slot(&self) -> Slot {
        match self {
            Self::Start { slot }
            | Self::Register { slot }
            | Self::Retire { slot, .. }
            | Self::Deregister { slot, .. }
            | Self::Find { slot, .. }
            | Self::End { slot, .. } => *slot,
        }
    }
}

/// Way in which a unit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum Ending {
    /// Orderly, so that the runner can report to GitHub.
    Stop,
    /// At once.
    Kill,
}
