//! The headers that every request carries, exactly once each.

use http::header::{ACCEPT, CONTENT_LENGTH, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use octocrab::OctoBody;
use tower::ServiceExt as _;

use super::stack::Stack;
use crate::config::GitHubConfig;
use crate::github::setup::SetupError;

/// Returns the headers that the configuration asks for.
///
/// # Errors
/// The API version has characters that no header may have.
pub(in crate::github) fn common(config: &GitHubConfig) -> Result<HeaderMap, SetupError> {
    let version = HeaderValue::from_str(&config.api_version)
        .map_err(|_| SetupError::Header("X-GitHub-Api-Version"))?;
    let agent = concat!("runner-controller/", env!("CARGO_PKG_VERSION"));
    Ok(HeaderMap::from_iter([
        (
            ACCEPT,
            HeaderValue::from_static("application/vnd.github+json"),
        ),
        (USER_AGENT, HeaderValue::from_static(agent)),
        (HeaderName::from_static("x-github-api-version"), version),
    ]))
}

/// Replaces the headers of each request by `common`.
///
/// octocrab 0.54.9 writes its own API version into every request (`build_request`, src/lib.rs:2431)
/// and a `Content-Length: 0` into those without a body (src/lib.rs:2443). Its `ExtraHeadersLayer`
/// adds a second value instead of replacing the first (`src/service/middleware/extra_headers.rs:52`).
pub(super) fn headers(inner: Stack, common: HeaderMap) -> Stack {
    let replace = move |mut request: Request<OctoBody>| {
        let headers = request.headers_mut();
        headers.remove(CONTENT_LENGTH);
        for (name, value) in &common {
            headers.insert(name, value.clone());
        }
        request
    };
    inner.map_request(replace).boxed_clone()
}
