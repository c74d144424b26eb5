//! A strict stand-in for the part of GitHub that a self-hosted runner meets.
//!
//! Three faces on one address: GitHub's REST API for runners (`/repos/…`, `/orgs/…`), what a
//! runner's listener speaks (`/oauth2/token`, `/broker/…`, `/run/…`), and the stand-in's own
//! control API (`/_sim/…`), which is also here as methods of [`Control`].
//!
//! Requests are judged by GitHub's `OpenAPI` document, and so are our own answers: where the
//! stand-in differs from GitHub it shall be stricter. The README says where it is less.
//!
//! ```no_run
//! # async fn example() -> Result<(), github_sim::StartError> {
//! use github_sim::{JobSpec, Options, Server};
//! let sim = Server::start(Options::default()).await?;
//! let job = sim.control().add_job(JobSpec::new("build", &["ci"], "true"));
//! println!("{} {} {job}", sim.url(), sim.token());
//! # Ok(())
//! # }
//! ```
//!
//! All state is behind one lock in `state`; handlers are plain functions on it. Time-driven
//! changes happen whenever the state is touched, and at least every 20 ms.

pub mod blob;
mod broker;
mod control;
mod faults;
mod http;
mod keep;
mod limits;
mod model;
mod options;
mod random;
mod rest;
mod route;
mod schema;
mod scope;
mod server;
mod settings;
mod state;
mod stats;
mod view;
pub mod wire;

pub use control::{Control, SettingsError};
pub use faults::{Action, Match, Rule};
pub use options::{APP_KEY, DEFAULT_TOKEN, Options};
pub use rest::app::{App, AppKeyError};
pub use route::Endpoint;
pub use scope::{Scope, ScopeError};
pub use server::{Handle, Server, StartError};
pub use settings::{Group, PageGlitch, Settings};
pub use stats::{RequestRecord, Stats};
pub use view::{
    Assignment, Conclusion, GoneCause, JobSpec, JobStatus, JobView, Outcome, PlantedRunner,
    RunnerView, Standing,
};
pub use wire::{Facts, Misbehaviour, Step};
