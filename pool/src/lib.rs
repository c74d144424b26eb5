//! The core: what is known of the pools, and what happens next.
//!
//! The core is pure. It has no clock, no randomness, no I/O and no `await`: `now` and random numbers
//! are arguments, and it knows neither D-Bus nor HTTP nor files. So every decision can be tested by the
//! thousand.
//!
//! ```text
//!  vacant ──start──▶ booting ──requests──▶ spare ──mint, deliver──▶ registering ──online──▶ idle ──job──▶ busy
//!     ▲                 │                    │                          │                     │            │
//!     └── ended: unit gone, verdict given ◀──┴── retiring ◀── timeout, age, drain, roll, end ─┴────────────┘
//! ```
//!
//! - [`Pools`] is all pools of a host. Its methods apply events and return [`Effect`]s, adoption after a
//!   restart included.
//! - [`Pool`] is what is known of one pool, and [`plan`] decides its next steps.
//! - [`Runner`] is one runner from start to verdict. A registration that outlives its runner is one of
//!   the [`Orphans`]. Each registration has its [`ScopeId`], and [`ScopeState`] is what is known of a scope.
//! - [`shortages`] decides whether the host has enough left for new runners, [`Mode`] whether an
//!   operator wants them, and [`RateLimit`] whether GitHub does. [`Pace`] bounds the mints of a minute.
//! - [`group_problems`] tells which jobs a runner group keeps from a pool.
//! - [`RunnerVersion`] and [`VersionEnd`] tell for how long GitHub accepts a runner.
//! - [`schedule`] decides how many runners each pool should have now, by the jobs that wait and the [`Budget`].
//! - [`SetSession`] decides the next call for a scale set.
//! - [`JobTable`] has the jobs of GitHub's queue, as far as events tell, and the pool that serves each.

mod adopt;
mod backoff;
mod early;
mod effect;
mod events;
mod groups;
mod jobs;
mod limit;
mod mode;
mod names;
mod observation;
mod orphans;
mod pace;
mod phase;
mod plan;
mod pools;
mod reconcile;
mod registration;
mod resources;
mod restart;
mod runner;
mod scale_set;
mod schedule;
mod scope;
mod scope_state;
mod scopes;
mod spec;
mod state;
mod step;
mod time;
mod timeline;
mod verdict;
mod version;

pub use adopt::ConfigState;
pub use backoff::{Backoff, Backoffs, FailureKind};
pub use effect::Effect;
pub use groups::{
    GroupOwner, GroupProblem, GroupVisibility, RunnerGroup, find_group, group_problems,
};
pub use jobs::{
    Conclusion, Evidence, Fit, JobDescription, JobEnd, JobGroup, JobKey, JobPlace, JobReading,
    JobSource, JobStage, JobTable, KnownJob, MAX_ENDED_JOBS, MAX_LIVE_JOBS, PoolDemand, PoolLabels,
    TableEntry, WaitReason, due_readings, fits, missing_jobs, wait_reason,
};
pub use limit::{RateLimit, Rest};
pub use mode::Mode;
pub use names::{HostId, InvalidName, PoolName, RunnerName, Slot, SlotId};
pub use observation::{
    Deleted, EndRecord, Exit, Invocation, JobNote, ListedRunner, RecordedEnd, ResourceUse,
    RunnerId, StartRecord, UnitObservation, UnitState,
};
pub use orphans::{Deletions, Orphans, StrayRecord};
pub use pace::{DEFAULT_MINTS_PER_MINUTE, MintWindow, Pace, PaceReason, PaceRecord};
pub use phase::PhaseKind;
pub use plan::{Admission, next_deadline, plan};
pub use pools::Pools;
pub use registration::MintOutcome;
pub use resources::{Filesystem, Readings, Reserve, Resource, Share, Shortages, shortages};
pub use restart::Found;
pub use runner::{Call, Cause, Ended, Job, Phase, Registration, Runner, RunnerRecord};
pub use scale_set::{Polled, SetSession, SetState, SetStep, SetTrouble, must_announce};
pub use schedule::{
    Budget, Cost, DEFAULT_FAIRNESS_AGE, DEFAULT_RESERVE_AFTER, DEFAULT_SCALE_DOWN_AFTER, Demand,
    Glob, Jobs, OrderRules, PoolSupply, Priority, Schedule, Target, schedule,
};
pub use scope::ScopeId;
pub use scope_state::{MAX_ORPHANS, SLOW_MINTS_PER_MINUTE, ScopeState};
pub use spec::{Numbers, Spec, Timeouts};
pub use state::Pool;
pub use step::{Ending, Step};
pub use time::Timestamp;
pub use timeline::{PhaseEntry, Timeline};
pub use verdict::{JobResult, Verdict, VerdictRecord};
pub use version::{Freshness, InvalidVersion, RunnerVersion, VERSION_WARNING, VersionEnd};

#[cfg(test)]
mod tests;
