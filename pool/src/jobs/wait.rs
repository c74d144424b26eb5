//! The reason for which a job waits.

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

use crate::{PhaseKind, Pool};

/// Reason for which a job waits.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitReason {
    /// An environment needs an approval.
    Approval,
    /// No pool of this host has all its labels.
    NoPool,
    /// Its pool has an idle runner, and GitHub has not given the job to it yet.
    RunnerIdle,
    /// The host starts and registers no runner.
    AdmissionClosed,
    /// Every slot of its pool has a runner, and none of them is idle.
    PoolFull,
    /// A runner of its pool is about to become idle.
    RunnerStarting,
    /// The runners of its pool fail, and the next try is not over.
    PoolFails,
    /// The budget of the host is used up.
    Budget,
    /// A job before it has the next turn, and does not fit the budget.
    Turn,
    /// Its repository has as many runners of this host as it may.
    RepositoryCap,
}

impl WaitReason {
    /// Returns the reason in words.
    #[must_use]
    pub fn clause(self) -> &'static str {
        match self {
            Self::Approval => "an environment needs an approval",
            Self::NoPool => "no pool of this host has all its labels",
            Self::RunnerIdle => "an idle runner is there, and GitHub has not given it the job yet",
            Self::AdmissionClosed => "no new runners",
            Self::PoolFull => "every slot of the pool is in use",
            Self::RunnerStarting => "a runner is starting",
            Self::PoolFails => "the runners of the pool fail, and few are tried",
            Self::Budget => "the budget of the host is used up",
            Self::Turn => "a job before it waits for the budget",
            Self::RepositoryCap => {
                "its repository has as many runners as max_per_repository allows"
            }
        }
    }
}

/// Returns the reason for which jobs of a pool wait. `is_closed` is true while no runner may start or register.
#[must_use]
pub fn wait_reason(pool: &Pool, is_closed: bool) -> WaitReason {
    let count = |kinds: &[PhaseKind]| pool.count(|phase| kinds.contains(&phase.kind()));
    let all = pool.runners.len();
    let coming = [
        PhaseKind::Booting,
        PhaseKind::Spare,
        PhaseKind::Minting,
        PhaseKind::Registering,
    ];
    if count(&[PhaseKind::Idle]) > 0 {
        WaitReason::RunnerIdle
    } else if is_closed {
        WaitReason::AdmissionClosed
    } else if count(&coming) == 0 && all >= usize::from(pool.spec.numbers.max_runners) {
        WaitReason::PoolFull
    } else if !pool.backoffs.is_empty() {
        WaitReason::PoolFails
    } else {
        WaitReason::RunnerStarting
    }
}
