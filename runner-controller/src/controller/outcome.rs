//! Outcomes of the controller's tasks.

use crate::pool::{
    Deleted, ListedRunner, MintOutcome, RunnerGroup, RunnerId, RunnerName, RunnerVersion, ScopeId,
    SlotId, Timestamp, UnitObservation, VersionEnd,
};
use crate::world::RegistryError;

use super::writes::FailedWrite;

/// Kind of a list that is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListKind {
    /// The list of a reconcile, which is evidence for everything.
    Full,
    /// A list between two reconciles, which is evidence only of runners that are online or busy.
    Early,
}

/// Outcome of a task, which made one call to the world.
pub(super) enum Outcome {
    /// A start call was answered.
    Started {
        slot: SlotId,
        result: Result<(), String>,
    },
    /// A mint ended, and the delivery of its config.
    Minted {
        scope: ScopeId,
        slot: SlotId,
        name: RunnerName,
        outcome: MintOutcome,
        error: Option<RegistryError>,
    },
    /// The deregistration of a retiring runner was answered.
    Deregistered {
        scope: ScopeId,
        slot: SlotId,
        id: RunnerId,
        result: Result<Deleted, RegistryError>,
    },
    /// The question for one runner was answered.
    Found {
        scope: ScopeId,
        slot: SlotId,
        id: RunnerId,
        result: Result<Option<ListedRunner>, RegistryError>,
    },
    /// A stop or kill call was answered.
    EndRequested {
        slot: SlotId,
        result: Result<(), String>,
    },
    /// The deletion of an orphaned registration was answered.
    Deleted {
        scope: ScopeId,
        id: RunnerId,
        result: Result<Deleted, RegistryError>,
    },
    /// GitHub's list arrived.
    Listed {
        scope: ScopeId,
        requested_at: Timestamp,
        result: Result<Vec<ListedRunner>, RegistryError>,
    },
    /// A look at the runner groups of a scope was answered.
    GroupsListed {
        scope: ScopeId,
        result: Result<Vec<RunnerGroup>, RegistryError>,
    },
    /// A question about a version of the runner was answered.
    VersionAnswered {
        scope: ScopeId,
        version: RunnerVersion,
        result: Result<Option<VersionEnd>, RegistryError>,
    },
    /// All units were observed.
    Observed {
        began: Timestamp,
        result: Result<Vec<UnitObservation>, String>,
    },
    /// A write to the records ended.
    Written(Result<(), FailedWrite>),
}
