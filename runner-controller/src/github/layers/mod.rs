//! The layers around octocrab's client.
//!
//! From the network inwards: [`limits`] holds the budget and reads whole answers, [`origin`] keeps the
//! token at its server, [`refusals`] translates errors, [`headers`] makes each header exact. Two layers
//! of octocrab's follow: [`BaseUriLayer`] and, for the list of runners, [`HttpCacheLayer`].

mod cache;
mod headers;
mod limits;
mod origin;
mod refusals;
mod stack;

use std::sync::Arc;

use http::{HeaderMap, Uri};
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::service::middleware::cache::HttpCacheLayer;
use octocrab::{AuthState, Octocrab, OctocrabBuilder};
use tower::{Layer as _, ServiceExt as _};

use super::context::Context;
use super::transport::Transport;
use super::usage::Usage;

pub(super) use cache::Pages;
pub(super) use headers::common as common_headers;
pub(super) use refusals::NotModified;

/// The values that the layers of one client share.
pub(super) struct Shared {
    /// Scheme, host and port of the API.
    pub(super) origin: Uri,
    /// The headers of every request.
    pub(super) headers: HeaderMap,
    pub(super) usage: Arc<Usage>,
    pub(super) context: Arc<Context>,
}

/// One stack of layers with two octocrabs on top.
pub(super) struct Octocrabs {
    /// Remembers pages, and asks whether they still hold.
    pub(super) cached: Octocrab,
    /// Remembers nothing. octocrab's cache does not look at the method, so it would keep JIT configs
    /// and make mints conditional (octocrab 0.54.9, src/service/middleware/cache.rs:105-135).
    pub(super) uncached: Octocrab,
}

impl Octocrabs {
    /// Puts all layers around `transport`. Must be called within a tokio runtime, because each
    /// octocrab starts a task.
    ///
    /// octocrab's default client takes no layers: `with_layer` needs a service from `with_service`
    /// (octocrab 0.54.9, src/lib.rs:618).
    pub(super) fn over(transport: Transport, shared: &Shared, pages: &Pages) -> Self {
        let (usage, context) = (&shared.usage, &shared.context);
        let stack = limits::limits(transport, Arc::clone(usage), Arc::clone(context));
        let stack = origin::origin(stack, Arc::clone(usage), Arc::clone(context));
        let stack = refusals::refusals(stack, Arc::clone(context));
        let stack = headers::headers(stack, shared.headers.clone());
        let stack = BaseUriLayer::new(shared.origin.clone())
            .layer(stack)
            .boxed_clone();
        let storage = Arc::new(pages.clone());
        let cached = OctocrabBuilder::new_empty()
            .with_service(cache::links(stack.clone(), pages.clone()))
            .with_layer(&HttpCacheLayer::new(Some(storage)))
            .with_auth(AuthState::None)
            .build();
        let uncached = OctocrabBuilder::new_empty()
            .with_service(stack)
            .with_auth(AuthState::None)
            .build();
        match (cached, uncached) {
            (Ok(cached), Ok(uncached)) => Self { cached, uncached },
            (Err(never), _) | (_, Err(never)) => match never {},
        }
    }
}
