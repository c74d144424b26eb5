//! The runners GitHub knows: [`Registry`](crate::world::Registry) over its REST API.
//!
//! octocrab performs the requests; `layers` are what this program puts around it. A mint is one
//! request under a name that is never sent again. The list is one conditional request per page. Every
//! failure is put into words for the person who must act on it, and while GitHub limits us nothing
//! leaves. Tokens and JIT configs never reach a log or an error.

mod app;
mod authority;
mod budget;
mod cleanup;
mod client;
mod context;
mod endpoints;
mod exchange;
mod groups;
mod jit;
mod layers;
mod link;
mod listing;
mod login;
mod operation;
#[cfg(any(test, fuzzing))]
mod outside;
mod paged;
mod refusal;
mod registry;
mod secrets;
mod setup;
mod token;
mod transport;
mod usage;

pub use octocrab::OctoBody;

pub use app::AppKey;
pub use budget::Quota;
pub use cleanup::cleanup_candidates;
pub use login::{Login, TokenError};
#[cfg(any(test, fuzzing))]
pub(crate) use outside::{try_answer, try_refusal};
pub use registry::GitHub;
pub use setup::SetupError;
pub use token::Token;
