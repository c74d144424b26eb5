//! Sizing: the core with simulated jobs and simulated time, which predicts how long jobs wait on a host.
//!
//! The core decides here as in the daemon: it plans after each event, and the code here carries out its effects, which
//! take the times of [`Times`]. Nothing here decides which runner starts or registers.
//!
//! - `arrivals`: jobs that come, and `generate` makes them from kinds of jobs, at random
//! - `past`: jobs and times of the runners on record
//! - `times`: the times that a runner takes beside its job
//! - `setup`: the hosts of a simulation
//! - `play`: the events of hosts and GitHub, which `agenda` keeps in their order. `host` is one host, and `github` gives jobs to runners
//! - `outcome`: utilisation and waits
//! - `search`: the number of runners for which jobs wait no longer than a target

mod agenda;
mod arrivals;
mod generate;
mod github;
mod host;
mod outcome;
mod past;
mod play;
mod search;
mod setup;
mod times;

pub use arrivals::{Arrival, Arrivals, Span};
pub use generate::{GenerateError, generate};
pub use outcome::{Outcome, PoolOutcome};
pub use past::{Past, past};
pub use play::play;
pub use search::{Needed, needed};
pub use setup::Setup;
pub use times::{Samples, Source, Times};

#[cfg(test)]
mod tests;
