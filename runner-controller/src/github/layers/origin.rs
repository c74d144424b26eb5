//! The token stays at its server: redirects and links to further pages are followed on one origin.

use std::sync::Arc;

use http::header::{LINK, LOCATION};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use octocrab::OctoBody;
use tower::{ServiceExt as _, service_fn};
use url::{Position, Url};

use super::stack::Stack;
use crate::github::context::Context;
use crate::github::link::{self, Astray};
use crate::github::operation::Operation;
use crate::github::usage::Usage;
use crate::world::RegistryErrorKind;

/// Maximum number of redirects in a row. GitHub redirects once when a repository was renamed.
const MAX_REDIRECTS: usize = 3;

/// Repeats a redirected request as it was, and leaves of `Link` headers the next page alone.
///
/// GitHub asks to repeat the request, whatever the status. tower-http's `FollowRedirect`, which
/// octocrab uses, turns a POST into a GET after 301 and 302.
pub(super) fn origin(inner: Stack, usage: Arc<Usage>, context: Arc<Context>) -> Stack {
    let followed = move |request: Request<OctoBody>| {
        let (inner, usage, context) = (inner.clone(), Arc::clone(&usage), Arc::clone(&context));
        async move {
            let operation = Operation::of(&request);
            let (parts, body) = request.into_parts();
            let mut uri = parts.uri.clone();
            for _ in 0..=MAX_REDIRECTS {
                // Every body of ours is text in memory or empty.
                let body = body.try_clone().unwrap_or_default();
                let mut attempt = Request::from_parts(parts.clone(), body);
                *attempt.uri_mut() = uri.clone();
                let mut response = inner.clone().oneshot(attempt).await?;
                let Some(next) = redirect(&uri, &response) else {
                    keep_next(&uri, response.headers_mut()).map_err(|_: Astray| {
                        let problem = "the next page is on another server";
                        let (status, headers) = (response.status(), response.headers());
                        context.misshapen(operation, status, headers, problem)
                    })?;
                    return Ok(response);
                };
                uri = next;
                usage.count(operation, "redirected");
            }
            let message = format!("more than {MAX_REDIRECTS} redirects in a row");
            Err(context.error(operation, RegistryErrorKind::Server, &message))
        }
    };
    service_fn(followed).boxed_clone()
}

/// Returns the address to repeat a request at. An answer that leads to another origin is not a
/// redirect for us, and its refusal says where it leads.
fn redirect(uri: &Uri, response: &Response<Full<Bytes>>) -> Option<Uri> {
    match response.status() {
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            let target = response.headers().get(LOCATION)?.to_str().ok()?;
            let target = resolve(uri, target).ok()?;
            target.as_str().parse().ok()
        }
        _ => None,
    }
}

/// Replaces the `Link` headers by the one that leads to the next page, as path and query.
fn keep_next(uri: &Uri, headers: &mut HeaderMap) -> Result<(), Astray> {
    let next = link::next(headers);
    headers.remove(LINK);
    if let Some(next) = next {
        let next = resolve(uri, &next)?;
        let next = &next[Position::BeforePath..Position::AfterQuery];
        let next = HeaderValue::from_str(&format!("<{next}>; rel=\"next\""));
        headers.insert(LINK, next.map_err(|_| Astray::Unreadable)?);
    }
    Ok(())
}

fn resolve(uri: &Uri, target: &str) -> Result<Url, Astray> {
    let here = Url::parse(&uri.to_string()).map_err(|_| Astray::Unreadable)?;
    link::resolve(&here, target)
}
