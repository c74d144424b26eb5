//! The translation of refusals into errors.

use std::sync::Arc;

use http::header::IF_NONE_MATCH;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use octocrab::OctoBody;
use tower::{ServiceExt as _, service_fn};

use super::limits::LimitedFor;
use super::stack::Stack;
use crate::github::context::Context;
use crate::github::operation::Operation;
use crate::github::refusal;

/// An extension of answers that GitHub gave as 304. octocrab's cache shows them as 200.
#[derive(Debug, Clone, Copy)]
pub(in crate::github) struct NotModified;

/// Passes on successes and expected 304s, and turns every other answer into an error.
///
/// An unexpected 304 must not reach octocrab's cache, which panics because it has no body
/// (octocrab 0.54.9, src/service/middleware/cache.rs:160).
pub(super) fn refusals(inner: Stack, context: Arc<Context>) -> Stack {
    let translated = move |request: Request<OctoBody>| {
        let (inner, context) = (inner.clone(), Arc::clone(&context));
        async move {
            let operation = Operation::of(&request);
            let conditional = request.headers().contains_key(IF_NONE_MATCH);
            let mut response = inner.oneshot(request).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if status == StatusCode::NOT_MODIFIED && conditional {
                response.extensions_mut().insert(NotModified);
                return Ok(response);
            }
            let (parts, body) = response.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let limited = parts.extensions.get::<LimitedFor>();
            Err(refusal::translate(
                operation,
                status,
                &parts.headers,
                &body,
                limited.map(|limited| limited.0),
                &context,
            ))
        }
    };
    service_fn(translated).boxed_clone()
}
