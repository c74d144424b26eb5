//! Rules broken on purpose, one at a time, to see that somebody notices. Each stands for a daemon
//! that keeps one rule less, and is made here, between the controller and the world: the program
//! itself has no switch for it.

use clap::ValueEnum;

use crate::rule::Rule;

/// A rule that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// 422 on a deletion is taken for 404
    BusyIsIdle,
    /// The longest time of a unit forgets the job
    ShortLives,
    /// The config of the last life is given to the next one
    ConfigTwice,
    /// A config is given to another slot that waits for one
    ConfigElsewhere,
    /// A config is changed on its way
    ConfigForged,
    /// One slot more than configured is started
    OneTooMany,
    /// What GitHub says of limits is not heard
    DeafToLimits,
    /// The list is asked for many times at each compare
    Hasty,
    /// A mint is tried again under new names, many times
    MintStorm,
    /// Registrations are made that no container is there for
    MintsForNobody,
    /// A mint is tried again under the same name
    BlindRetry,
    /// Deletions are not paced
    DeletesInBursts,
    /// Another host's runners are taken for ours
    TakesForeign,
    /// Verdicts are not kept
    ForgetsVerdicts,
    /// Verdicts are kept twice
    VerdictTwice,
    /// A verdict is given as soon as a life is on record
    JudgesEarly,
    /// The daemon panics when it looks at its units
    Panics,
    /// Deletions are said to be done and are not
    NeverGivesBack,
    /// Starts are said to be done and are not
    LosesStarts,
}

impl Mutation {
    /// The rules that may be found broken; the first is what it is about.
    #[must_use]
    pub fn breaks(self) -> &'static [Rule] {
        match self {
            Self::BusyIsIdle => &[Rule::BusyLeftAlone],
            Self::ShortLives => &[Rule::LifetimeFitsJob],
            Self::ConfigTwice => &[Rule::ConfigGivenOnce],
            Self::ConfigElsewhere => &[Rule::ConfigForItsSlot],
            Self::ConfigForged => &[Rule::ConfigFromGitHub],
            Self::OneTooMany => &[Rule::MaxRunners],
            Self::DeafToLimits => &[Rule::SilentWhileLimited],
            Self::Hasty => &[Rule::FewLists],
            Self::MintStorm => &[Rule::FewMints],
            Self::MintsForNobody => &[Rule::RegistrationsOwned],
            Self::BlindRetry => &[Rule::NamesUsedOnce],
            Self::DeletesInBursts => &[Rule::FewDeletions],
            Self::TakesForeign => &[Rule::ForeignLeftAlone],
            Self::ForgetsVerdicts => &[Rule::Judged],
            Self::VerdictTwice => &[Rule::JudgedOnce],
            Self::JudgesEarly => &[Rule::JudgedAfterEnd],
            Self::Panics => &[Rule::NoPanic],
            Self::NeverGivesBack | Self::LosesStarts => &[Rule::Settles],
        }
    }
}
