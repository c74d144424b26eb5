//! The invariants that every history is checked for.

use std::fmt;

/// An invariant of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// The daemon stops or kills no runner that GitHub sent a job, unless the job is overdue or the operator cleared
    /// the host. Together with [`Invariant::LifetimeFitsJob`] it keeps jobs from being lost.
    BusyLeftAlone,
    /// `RuntimeMaxSec=` ends no job before its time.
    LifetimeFitsJob,
    /// A config is given to one container only, because the same registration in two would run a job twice.
    ConfigGivenOnce,
    /// A config is given to the slot that its registration is named for.
    ConfigForItsSlot,
    /// A config is given as GitHub made it.
    ConfigFromGitHub,
    /// A pool never has more containers than `max_runners`.
    MaxRunners,
    /// All pools together never have more containers than the budget allows.
    Budget,
    /// The daemon sends GitHub nothing before the time that GitHub asked for.
    SilentWhileLimited,
    /// The daemon asks for the list once for each reconcile, a new daemon twice, and at most three times after a
    /// registration, within three times a minute.
    FewLists,
    /// The number of mints in a minute is bounded.
    FewMints,
    /// The number of deletions in a minute is bounded.
    FewDeletions,
    /// Registrations have a container, except for a few that are on their way.
    RegistrationsOwned,
    /// A name is minted once.
    NamesUsedOnce,
    /// Only registrations of this host are deleted.
    ForeignLeftAlone,
    /// An id is deleted only in the scope in which it was given.
    IdsOfOneScope,
    /// A runner that another host uses under this host's name is not deleted.
    StrangersLeftAlone,
    /// Every container that ended has a verdict.
    Judged,
    /// A container has at most one verdict.
    JudgedOnce,
    /// A container has no verdict before its end.
    JudgedAfterEnd,
    /// A message of a scale set is deleted only after everything that it told is on record, and stays on record.
    MessagesOnRecord,
    /// No scale set is deleted, neither this host's nor another one's.
    SetsKept,
    /// A scale set gets no more jobs than its pool can have runners, and none while no runner may start.
    CapacityCanStart,
    /// A pool without idle runners and spares starts no more runners than it has jobs.
    OneRunnerPerJob,
    /// No runner starts for a job while an older one, whose pool has none, has waited for `queue.fairness_age`.
    OldJobsFirst,
    /// The daemon does not panic.
    NoPanic,
    /// After the last fault the host comes to be as configured: no job waits, every registration has a container,
    /// and every record has one.
    Settles,
}

impl Invariant {
    /// All invariants.
    pub const ALL: [Self; 26] = [
        Self::BusyLeftAlone,
        Self::LifetimeFitsJob,
        Self::ConfigGivenOnce,
        Self::ConfigForItsSlot,
        Self::ConfigFromGitHub,
        Self::MaxRunners,
        Self::Budget,
        Self::SilentWhileLimited,
        Self::FewLists,
        Self::FewMints,
        Self::FewDeletions,
        Self::RegistrationsOwned,
        Self::NamesUsedOnce,
        Self::ForeignLeftAlone,
        Self::IdsOfOneScope,
        Self::StrangersLeftAlone,
        Self::Judged,
        Self::JudgedOnce,
        Self::JudgedAfterEnd,
        Self::MessagesOnRecord,
        Self::SetsKept,
        Self::CapacityCanStart,
        Self::OneRunnerPerJob,
        Self::OldJobsFirst,
        Self::NoPanic,
        Self::Settles,
    ];

    /// Returns a description of its violation.
    #[must_use]
    pub fn violated(self) -> &'static str {
        match self {
            Self::BusyLeftAlone => "a busy runner was ended without cause",
            Self::LifetimeFitsJob => "RuntimeMaxSec= cut a job short",
            Self::ConfigGivenOnce => "a config was given twice",
            Self::ConfigForItsSlot => "a config was given to another slot",
            Self::ConfigFromGitHub => "a config was given that GitHub did not make",
            Self::MaxRunners => "a pool has more containers than max_runners",
            Self::Budget => "all pools have more containers than budget.runners",
            Self::SilentWhileLimited => "a call was sent while limited",
            Self::FewLists => "too many lists",
            Self::FewMints => "too many mints in a minute",
            Self::FewDeletions => "too many deletions in a minute",
            Self::RegistrationsOwned => "too many registrations without a container",
            Self::NamesUsedOnce => "a name was minted twice",
            Self::ForeignLeftAlone => "another host's runner was deleted",
            Self::IdsOfOneScope => "a runner of another scope with the same id was deleted",
            Self::StrangersLeftAlone => "an online runner of another host was deleted",
            Self::Judged => "a container has no verdict",
            Self::JudgedOnce => "a container has two verdicts",
            Self::JudgedAfterEnd => "a container has a verdict before its end",
            Self::MessagesOnRecord => "a message was deleted and is not on record",
            Self::SetsKept => "a scale set was deleted",
            Self::CapacityCanStart => "a scale set could get jobs that no runner can start for",
            Self::OneRunnerPerJob => "two runners started for one job",
            Self::OldJobsFirst => "younger jobs overtook one whose turn had come",
            Self::NoPanic => "the daemon panicked",
            Self::Settles => "the host does not settle",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.violated())
    }
}

/// A violated invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: Invariant,
    /// The facts.
    pub facts: String,
}
