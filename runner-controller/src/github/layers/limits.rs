//! The budget around each request: no request leaves while a limit holds, and every answer counts.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError};
use octocrab::OctoBody;
use tokio::time::Instant;
use tower::{ServiceExt as _, service_fn};

use super::stack::Stack;
use crate::github::context::request_id;
use crate::github::context::{Context, with_causes};
use crate::github::operation::Operation;
use crate::github::transport::{MAX_ANSWER_BYTES, Transport};
use crate::github::usage::Usage;
use crate::world::{RegistryError, RegistryErrorKind};

/// The time to send nothing that an answer asked for. An extension of answers that are refused for
/// a limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct LimitedFor(pub(super) std::time::Duration);

/// Sends a request if the budget admits it, and reads the whole answer.
///
/// The body is read here because only its text tells a limit from a missing permission.
pub(super) fn limits(inner: Transport, usage: Arc<Usage>, context: Arc<Context>) -> Stack {
    let limited = move |request: Request<OctoBody>| {
        let (inner, usage, context) = (inner.clone(), Arc::clone(&usage), Arc::clone(&context));
        async move {
            let operation = Operation::of(&request);
            // Checked for each attempt: another call may have met a limit since this one began.
            let admitted = usage.admit(operation);
            admitted.map_err(|withheld| context.withheld(operation, &withheld))?;

            let sent = Instant::now();
            let response = inner.oneshot(request).await;
            let response =
                response.map_err(|error| context.unreachable(operation, &with_causes(&*error)))?;
            let (mut parts, body) = response.into_parts();
            let body = body.collect().await;
            let body = body.map(http_body_util::Collected::to_bytes);
            let seen = body.as_deref().unwrap_or_default();
            let limited = usage.observe(operation, parts.status, &parts.headers, seen);
            match body {
                Ok(body) => {
                    usage.time(operation, sent.elapsed());
                    if let Some(wait) = limited {
                        parts.extensions.insert(LimitedFor(wait));
                    }
                    Ok(Response::from_parts(parts, Full::new(body)))
                }
                Err(fault) => {
                    let mut error = cut_off(&context, operation, &*fault);
                    if limited.is_some() {
                        error.kind = RegistryErrorKind::Limited;
                        error.retry_after = limited;
                    }
                    error.status = Some(parts.status.as_u16());
                    error.request_id = request_id(&parts.headers);
                    Err(error)
                }
            }
        }
    };
    service_fn(limited).boxed_clone()
}

fn cut_off(
    context: &Context,
    operation: Operation,
    fault: &(dyn std::error::Error + 'static),
) -> RegistryError {
    if fault.is::<LengthLimitError>() {
        let message = format!("the answer is larger than {MAX_ANSWER_BYTES} bytes");
        return context.error(operation, RegistryErrorKind::Server, &message);
    }
    let mut error = context.unreachable(operation, &with_causes(fault));
    error.message = format!("the answer was cut off: {}", error.message);
    error
}
