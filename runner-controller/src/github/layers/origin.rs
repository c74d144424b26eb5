//! The rule that a token stays at its server: redirects and links are followed on the same origin only.

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
use crate::github::link::{self, NotFollowed};
use crate::github::operation::Operation;
use crate::github::usage::Usage;
use crate::world::RegistryErrorKind;

/// Maximum number of redirects in a row. GitHub redirects once when a repository was renamed.
const MAX_REDIRECTS: usize = 3;

/// Repeats a redirected request unchanged, and reduces `Link` headers to the next page.
///
/// GitHub asks to repeat the request, whatever the status of the redirect. tower-http's
/// `FollowRedirect`, which octocrab uses, turns a POST into a GET after 301 and 302.
pub(super) fn origin(inner: Stack, usage: Arc<Usage>, context: Arc<Context>) -> Stack {
    let followed = move |request: Request<OctoBody>| {
        let (inner, usage, context) = (inner.clone(), Arc::clone(&usage), Arc::clone(&context));
        async move {
            let operation = Operation::of(&request);
            let (parts, body) = request.into_parts();
            let mut uri = parts.uri.clone();
            for _ in 0..=MAX_REDIRECTS {
                // A body can be copied unless it is empty: octocrab builds it from text in memory.
                let body = body.try_clone().unwrap_or_default();
                let mut attempt = Request::from_parts(parts.clone(), body);
                *attempt.uri_mut() = uri.clone();
                let mut response = inner.clone().oneshot(attempt).await?;
                let Some(next) = redirect(&uri, &response) else {
                    keep_next(&uri, response.headers_mut()).map_err(|_: NotFollowed| {
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

/// Returns the address at which a request is repeated. A redirect to another origin is not followed; it
/// becomes an error that names the address.
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

/// Replaces the `Link` headers by one with the path and query of the next page.
fn keep_next(uri: &Uri, headers: &mut HeaderMap) -> Result<(), NotFollowed> {
    let next = link::next(headers);
    headers.remove(LINK);
    if let Some(next) = next {
        let next = resolve(uri, &next)?;
        let next = &next[Position::BeforePath..Position::AfterQuery];
        let next = HeaderValue::from_str(&format!("<{next}>; rel=\"next\""));
        headers.insert(LINK, next.map_err(|_| NotFollowed::Unreadable)?);
    }
    Ok(())
}

fn resolve(uri: &Uri, target: &str) -> Result<Url, NotFollowed> {
    let here = Url::parse(&uri.to_string()).map_err(|_| NotFollowed::Unreadable)?;
    link::resolve(&here, target)
}
