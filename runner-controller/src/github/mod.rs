//! GitHub's REST API, as far as runners need it: [`Registry`](crate::world::Registry) for one scope.
//!
//! octocrab performs the requests, and the layers in `layers` surround it. A mint is one request
//! under a name that is never sent again. The list is one conditional request per page. Every error
//! tells the operator what to change. No request leaves while a rate limit holds. Tokens and JIT
//! configs never reach a log or an error.

mod app;
mod authority;
mod budget;
mod cleanup;
mod client;
mod context;
mod endpoints;
mod exchange;
mod former;
mod groups;
mod hooks;
mod jit;
mod layers;
mod link;
mod listing;
mod login;
mod operation;
#[cfg(any(test, fuzzing))]
mod outside;
mod paged;
mod proxy;
mod queue;
mod refusal;
mod registry;
mod scale_set;
mod secrets;
mod setup;
mod token;
mod transport;
mod usage;
mod version;

pub use octocrab::OctoBody;

pub use app::AppKey;
pub use budget::Quota;
pub use cleanup::{cleanup_candidates, online_strangers};
pub use former::{KnownScope, known_scopes};
pub use hooks::HookDeliveries;
pub use listing::LabelledRunner;
pub use login::{Login, LoginError};
#[cfg(any(test, fuzzing))]
pub(crate) use outside::{try_answer, try_refusal};
pub use proxy::check_ca_file;
pub use queue::JobQueue;
pub use registry::GitHub;
#[cfg(any(test, fuzzing))]
pub(crate) use scale_set::try_message;
pub use scale_set::{ScaleSetService, Session};
pub use setup::SetupError;
pub use token::Token;
