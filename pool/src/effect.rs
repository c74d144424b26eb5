//! Effects: the consequences that the core asks its caller to carry out.

use super::names::{RunnerName, SlotId};
use super::observation::RunnerId;
use super::orphans::StrayRecord;
use super::runner::{Ended, RunnerRecord};
use super::scope::ScopeId;
use super::step::Step;

/// Consequence of a plan or of an event. Effects are carried out in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Carry out a step that has begun.
    Step(SlotId, Step),
    /// Delete an orphaned registration of a scope.
    Delete(ScopeId, RunnerId),
    /// Request the list of a scope before the next reconcile.
    ListEarly(ScopeId),
    /// Log that an orphaned registration has the id of a runner, and is kept. GitHub gives no id
    /// twice, so one of them is wrong, and the runner counts.
    OrphanInUse(RunnerId),
    /// Log that another host uses this host's name, which a registration has.
    NameInUse(RunnerName),
    /// Write the record of an orphaned registration.
    Stray(Box<StrayRecord>),
    /// Remove the record of an orphaned registration.
    ForgetStray(ScopeId, RunnerId),
    /// Write a record in place of the one that its slot has.
    Record(Box<RunnerRecord>),
    /// Remove the record of a slot.
    Forget(SlotId),
    /// Log and count the end of a runner, and write its verdict in place of its record.
    Ended(Box<Ended>),
    /// Log that a spare is ready.
    SpareReady(SlotId),
    /// Log that a runner was adopted.
    Adopted(SlotId),
}
