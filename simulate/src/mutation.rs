//! Mutations: defects of a daemon, one at a time, to see that the observer notices each. They are made between the
//! controller and the world. The daemon itself has no switch for them.

use clap::ValueEnum;
use runner_controller::config::PoolConfig;

use crate::host::Rules;
use crate::invariant::Invariant;

/// A defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// The answer 422 to a deletion counts as 404
    BusyTakenForDeleted,
    /// `RuntimeMaxSec=` leaves out the time of the job
    ShortRuntimeMax,
    /// A container gets the config of the container before it
    ConfigReused,
    /// A container gets the config of another slot
    ConfigToOtherSlot,
    /// A config is changed on its way
    ConfigChanged,
    /// One slot more than configured is started
    ExtraUnit,
    /// Limits that GitHub announces are ignored
    LimitsIgnored,
    /// The list is requested many times for each reconcile
    ExtraLists,
    /// Each mint is sent many times
    ExtraMints,
    /// Registrations are made whose configs no container gets
    UnusedRegistrations,
    /// A mint is repeated under the same name
    NameReused,
    /// Each deletion is sent many times
    ExtraDeletions,
    /// Deletions in a former scope are sent to the configured one
    ScopeIgnored,
    /// Online runners pass for offline ones
    OnlineTakenForOffline,
    /// Runners of another host pass for this host's
    ForeignTakenForOwn,
    /// Verdicts are not written
    VerdictsDropped,
    /// Root's records are not found, except the newest of each slot
    EarlierEndsHidden,
    /// Verdicts are written twice
    VerdictsDuplicated,
    /// A verdict is written as soon as a container has started
    VerdictBeforeEnd,
    /// The daemon panics when it observes its units
    Panics,
    /// Deletions of idle runners are answered and not sent
    DeletionsDropped,
    /// Starts of the first slot are answered and not sent
    StartsDropped,
    /// A deletion that GitHub answers by an error counts as done
    FailedDeletionTakenForDone,
    /// A mint is sent again if a proxy cuts its answer off
    CutOffMintRepeated,
    /// Deliveries are answered and not put on record
    DeliveriesDropped,
    /// Each delivery tells of another job, too
    JobsDoubled,
    /// The budget is not known
    BudgetIgnored,
    /// Jobs that messages of scale sets tell of are not put on record
    MessagesDropped,
    /// Jobs that messages of scale sets tell of are flushed to the disk a minute late
    JobsFlushedLate,
    /// A daemon that stops deletes its scale sets
    SetsDeleted,
    /// A runner is ended when a message tells the end of its job
    CompletedTakenForEnd,
    /// The capacity of a scale set is never lowered
    CapacityKept,
    /// The age of a job gives it no turn
    FairnessIgnored,
}

impl Mutation {
    /// Returns the invariants that it may violate. It is there for the first.
    #[must_use]
    pub fn violates(self) -> &'static [Invariant] {
        match self {
            Self::BusyTakenForDeleted => &[Invariant::BusyLeftAlone],
            Self::ShortRuntimeMax => &[Invariant::LifetimeFitsJob],
            Self::ConfigReused => &[Invariant::ConfigGivenOnce],
            Self::ConfigToOtherSlot => &[Invariant::ConfigForItsSlot],
            Self::ConfigChanged => &[Invariant::ConfigFromGitHub],
            Self::ExtraUnit => &[Invariant::MaxRunners],
            Self::LimitsIgnored => &[Invariant::SilentWhileLimited],
            Self::ExtraLists => &[Invariant::FewLists],
            Self::ExtraMints => &[Invariant::FewMints],
            Self::UnusedRegistrations => &[Invariant::RegistrationsOwned],
            Self::NameReused => &[Invariant::NamesUsedOnce],
            Self::ExtraDeletions => &[Invariant::FewDeletions],
            Self::ScopeIgnored => &[Invariant::IdsOfOneScope],
            // A runner that stays offline for the daemon never becomes idle.
            Self::OnlineTakenForOffline => &[Invariant::StrangersLeftAlone, Invariant::Settles],
            Self::ForeignTakenForOwn => &[Invariant::ForeignLeftAlone],
            Self::VerdictsDropped | Self::EarlierEndsHidden => &[Invariant::Judged],
            Self::VerdictsDuplicated => &[Invariant::JudgedOnce],
            Self::VerdictBeforeEnd => &[Invariant::JudgedAfterEnd],
            Self::Panics => &[Invariant::NoPanic],
            // GitHub may send a job to a runner that the daemon takes for deleted, and the registrations that
            // stay may become too many.
            Self::DeletionsDropped => &[
                Invariant::Settles,
                Invariant::BusyLeftAlone,
                Invariant::RegistrationsOwned,
            ],
            Self::StartsDropped => &[Invariant::Settles],
            // GitHub still has the runner, and may send it a job.
            Self::FailedDeletionTakenForDone => &[Invariant::BusyLeftAlone, Invariant::Settles],
            Self::CutOffMintRepeated => &[Invariant::NamesUsedOnce],
            Self::DeliveriesDropped => &[Invariant::Settles],
            // A runner without a job stays.
            Self::JobsDoubled => &[Invariant::OneRunnerPerJob, Invariant::Settles],
            Self::BudgetIgnored => &[Invariant::Budget],
            Self::MessagesDropped | Self::JobsFlushedLate => &[Invariant::MessagesOnRecord],
            Self::SetsDeleted => &[Invariant::SetsKept],
            Self::CompletedTakenForEnd => &[Invariant::BusyLeftAlone],
            Self::CapacityKept => &[Invariant::CapacityCanStart],
            Self::FairnessIgnored => &[Invariant::OldJobsFirst],
        }
    }

    /// Returns the host's rules under this mutation.
    #[must_use]
    pub(crate) fn host_rules(mutation: Option<Self>) -> Rules {
        let short = |pool: &PoolConfig| {
            let timeouts = &pool.timeouts;
            timeouts.boot + timeouts.registration + timeouts.stop
        };
        let is_short = mutation == Some(Self::ShortRuntimeMax);
        Rules {
            runtime_max: if is_short {
                short
            } else {
                PoolConfig::longest_lifetime
            },
            allows_any_slot: mutation == Some(Self::ExtraUnit),
        }
    }
}
