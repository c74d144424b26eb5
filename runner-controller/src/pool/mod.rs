//! The core: what a pool is, where each of its runners is in its life, and what to do next.
//!
//! Plain data and functions. No clock, no randomness, no I/O, no `await`: `now` and randomness are arguments, and nothing
//! here knows D-Bus, HTTP or files. That is what makes every decision testable by the thousand.
//!
//! ```text
//!  vacant ──start──▶ booting ──asks──▶ spare ──mint, answer──▶ registering ──online──▶ idle ──job──▶ busy
//!     ▲                 │                │                          │                    │            │
//!     └──── closed: unit gone, verdict given ◀── retiring ◀── timeout, age, drain, roll, end ─────────┘
//! ```
//! [`Pool`] is what is known, [`plan`] says what to do, and the methods of [`Pool`] fold in what
//! came of it. A registration that outlives its machine goes to the [`Ledger`].

mod admission;
mod adopt;
mod backoff;
mod ledger;
mod names;
mod observation;
mod plan;
mod registration;
mod runner;
mod spec;
mod state;
mod time;

pub use admission::{Filesystem, Readings, Reserve, Resource, Share, Shortages, shortages};
pub use backoff::{Backoff, Backoffs, FailureKind};
pub use ledger::Ledger;
pub use names::{HostId, InvalidName, PoolName, RunnerName, Slot, SlotId};
pub use observation::{
    Deleted, EndRecord, Exit, Invocation, JobNote, ListedRunner, RunnerId, StartRecord,
    UnitObservation, UnitState,
};
pub use plan::{Admission, Ending, Step, next_deadline, plan};
pub use registration::MintOutcome;
pub use runner::{
    Cause, Ended, Job, Phase, PhaseKind, Registration, Runner, RunnerRecord, Verdict,
};
pub use spec::{Spec, Timeouts};
pub use state::Pool;
pub use time::Timestamp;

#[cfg(test)]
mod tests;
