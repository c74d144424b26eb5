//! A strict stand-in for the part of GitHub that a self-hosted runner uses.
//!
//! One address serves four APIs: GitHub's REST API for runners (`/repos/…`, `/orgs/…`), the API of a
//! runner's listener (`/oauth2/token`, `/broker/…`, `/run/…`), the service of scale sets (`/rest/_apis/…`,
//! `/scalesets/…`), and the stand-in's control API (`/_sim/…`), which is also a Rust API, [`Control`].
//!
//! Requests and answers are checked by GitHub's `OpenAPI` description. A difference from GitHub must be on
//! the strict side. The README lists the parts that are missing.
//!
//! ```no_run
//! # async fn example() -> Result<(), github_sim::StartError> {
//! use github_sim::{JobSpec, Server, ServerOptions};
//! let sim = Server::start(ServerOptions::default()).await?;
//! let job = sim.control().add_job(JobSpec::new("build", &["ci"], "true"));
//! println!("{} {} {job}", sim.url(), sim.token());
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! - `server` accepts connections, routes requests and injects faults. It calls one of
//!   - `rest`, GitHub's REST API,
//!   - `listener_api`, the endpoints of listeners, with `run_api`, the endpoints of a job,
//!   - `results_api`, the endpoints of a job's logs,
//!   - `scale_set_api`, the service of scale sets,
//!   - `control`, the control API.
//! - `state` holds runners, jobs and limits behind one lock, and their file. Handlers are plain
//!   functions on it. `scale_sets` is the part of it that scale sets are; `registration` adds a runner.
//! - `webhooks` has the hooks and their deliveries, which `server` sends. `github_json` writes jobs and repositories for
//!   answers and deliveries.
//! - `endpoint` and `scale_set_call` name the calls.
//! - `faults`, `settings`, `scale_set_settings`, `options`, `view`, `stats`, `scope` are values that callers pass and get;
//!   [`wire`],
//!   [`jit_config`], [`client_assertion`] and [`job_message`] are shared with the stand-in listener.
//! - `runner_key` has the RSA keys of runners.
//!
//! # Tasks
//!
//! Each address has a task that accepts connections, and axum starts a task for each connection. One
//! more task makes the changes that time alone makes, every 20 ms; each access to the state makes them
//! too. Another one sends webhook deliveries, one at a time for each hook. A watch channel tells held polls and [`Control::wait_for`] that the state has changed.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod client_assertion;
mod control;
mod endpoint;
mod faults;
mod github_app;
mod github_json;
mod http;
pub mod jit_config;
pub mod job_message;
mod listener_api;
mod options;
mod random;
mod registration;
mod rest;
mod results_api;
mod run_api;
mod runner_key;
mod scale_set_api;
mod scale_set_call;
mod scale_set_settings;
mod scale_sets;
mod scope;
mod server;
mod settings;
mod state;
mod stats;
mod time;
mod view;
mod webhooks;
pub mod wire;

pub use control::{Control, SettingsError};
pub use endpoint::Endpoint;
pub use faults::{Fault, FaultRule, RequestMatch};
pub use github_app::{APP_KEY, AppKeyError, GitHubApp};
pub use options::ServerOptions;
pub use runner_key::{RunnerKeyError, SignatureAlgorithm};
pub use scale_set_call::ScaleSetCall;
pub use scale_set_settings::{ScaleSetMode, ScaleSetSettings};
pub use scope::{Scope, ScopeError};
pub use server::{Server, ServerHandle, StartError};
pub use settings::{PagingFault, RunnerGroup, Settings, VersionDates};
pub use stats::{RequestRecord, Stats};
pub use view::{
    Assignment, Conclusion, GoneCause, JobContainer, JobSpec, JobState, JobView, Outcome,
    PlantedRunner, RunnerView, ScaleSetView, ScopeToken, Standing,
};
pub use webhooks::{
    DeliveryView, HookSpec, HookTarget, WebhookFault, WebhookFaultRule, WebhookSettings, signature,
};
pub use wire::{Facts, JobStep, ListenerFaults};
