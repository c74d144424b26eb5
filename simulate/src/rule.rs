//! What must hold, whatever befalls.

use std::fmt;

/// A promise of the daemon that is watched over in every history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Nobody stops or kills a runner that GitHub sent a job, unless the job is overdue or an operator
    /// wants everything gone. With [`Rule::LifetimeFitsJob`] this is what keeps jobs from being lost.
    BusyLeftAlone,
    /// `RuntimeMaxSec=` ends no job before its time.
    LifetimeFitsJob,
    /// A config is given to one container only: the same registration in two would run a job twice.
    ConfigGivenOnce,
    /// A config is given to the slot that its registration is named for.
    ConfigForItsSlot,
    /// A config is given as GitHub made it.
    ConfigFromGitHub,
    /// A pool never has more lives than it may have.
    MaxRunners,
    /// GitHub hears nothing before the time that it asked for.
    SilentWhileLimited,
    /// GitHub is asked for the list once for each compare, and once or twice by each new daemon.
    FewLists,
    /// So many mints in a minute.
    FewMints,
    /// So many deletions in a minute.
    FewDeletions,
    /// Registrations have a machine, but for a few that are on their way.
    RegistrationsOwned,
    /// A name is minted once.
    NamesUsedOnce,
    /// Only runners of this very host are deleted.
    ForeignLeftAlone,
    /// Every life that ended has a verdict.
    Judged,
    /// No life has two.
    JudgedOnce,
    /// No life has one before its end.
    JudgedAfterEnd,
    /// The daemon does not panic.
    NoPanic,
    /// Once the faults stop everything comes to be as configured, and all that was taken is given
    /// back: no job waits, no registration is without a machine, no record without a life.
    Settles,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::BusyLeftAlone,
        Self::LifetimeFitsJob,
        Self::ConfigGivenOnce,
        Self::ConfigForItsSlot,
        Self::ConfigFromGitHub,
        Self::MaxRunners,
        Self::SilentWhileLimited,
        Self::FewLists,
        Self::FewMints,
        Self::FewDeletions,
        Self::RegistrationsOwned,
        Self::NamesUsedOnce,
        Self::ForeignLeftAlone,
        Self::Judged,
        Self::JudgedOnce,
        Self::JudgedAfterEnd,
        Self::NoPanic,
        Self::Settles,
    ];

    /// How it is said that this one was broken.
    #[must_use]
    pub fn when_broken(self) -> &'static str {
        match self {
            Self::BusyLeftAlone => "a busy runner was ended without cause",
            Self::LifetimeFitsJob => "RuntimeMaxSec= cut a job short",
            Self::ConfigGivenOnce => "a config was given twice",
            Self::ConfigForItsSlot => "a config went to another slot",
            Self::ConfigFromGitHub => "a config was given that GitHub never made",
            Self::MaxRunners => "more lives than max_runners",
            Self::SilentWhileLimited => "a call while limited",
            Self::FewLists => "too many lists",
            Self::FewMints => "too many mints in a minute",
            Self::FewDeletions => "too many deletions in a minute",
            Self::RegistrationsOwned => "too many registrations without a machine",
            Self::NamesUsedOnce => "a name was minted twice",
            Self::ForeignLeftAlone => "somebody else's runner was deleted",
            Self::Judged => "a life without a verdict",
            Self::JudgedOnce => "two verdicts on one life",
            Self::JudgedAfterEnd => "a verdict on a life that lasts",
            Self::NoPanic => "the daemon panicked",
            Self::Settles => "it does not settle",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.when_broken())
    }
}
