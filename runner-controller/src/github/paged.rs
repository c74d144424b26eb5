//! One page of a list.

use http::Response;
use hyper::body::{Body, Bytes};
use octocrab::FromResponse;
use serde::de::DeserializeOwned;

use super::link;

/// A page and the path of the page after it.
///
/// octocrab's `Page` (octocrab 0.54.9, src/page.rs) is not used:
/// - it takes any JSON array for a page (line 192), so a proxy's `[]` reads as an empty list, and
///   every runner for gone;
/// - it looks for fifteen field names and takes the first that is there (line 207), but does not know
///   `runner_groups`;
/// - it splits `Link` headers at commas, refuses relative references, follows a link to any host, and
///   prints relations that it does not know to standard error (`get_links`, lines 255-288).
pub(super) struct Paged<T> {
    pub(super) body: T,
    /// Path and query on the same origin, as the layer `origin` leaves them.
    pub(super) next: Option<String>,
}

impl<T: DeserializeOwned> FromResponse for Paged<T> {
    async fn from_response<B>(response: Response<B>) -> octocrab::Result<Self>
    where
        B: Body<Data = Bytes, Error = octocrab::Error> + Send,
    {
        let next = link::next(response.headers());
        let body = T::from_response(response).await?;
        Ok(Self { body, next })
    }
}
