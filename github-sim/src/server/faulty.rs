//! Answers under a fault.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{
        StatusCode,
        header::{CONTENT_LENGTH, HeaderValue},
    },
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::Value;

use super::connection::{ConnectionEnd, ConnectionHandle, RawAnswer};
use crate::{
    faults::Fault,
    http::{ApiReply, ApiRequest},
    rest,
    state::GitHubState,
};

/// Effect of a fault on the handling of a request.
pub(crate) enum Handling {
    /// The request is handled.
    Handled,
    /// The request is not handled, and this is the answer.
    Refused(ApiReply),
    /// The request is not handled, and an answer is not sent.
    Ignored,
}

/// Returns how a request is handled under `fault`.
pub(crate) fn handling(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
    fault: &Fault,
) -> Handling {
    let (bucket, mut usage) = rest::usage_of(state, now, request);
    let mut reply = match fault {
        Fault::Status {
            code,
            body,
            headers,
        } => {
            let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut reply = match body {
                Some(body) => ApiReply::json(status, body),
                None if status == StatusCode::NO_CONTENT => ApiReply::empty(status),
                None => rest::errors::plain(status, status.canonical_reason().unwrap_or("Error")),
            };
            for (name, value) in headers {
                reply.set(name, value);
            }
            reply
        }
        Fault::Html502 => {
            return Handling::Refused(ApiReply::with_type(
                StatusCode::BAD_GATEWAY,
                "text/html",
                b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>".to_vec(),
            ));
        }
        Fault::PrimaryLimit { reset_in_s } => {
            usage.used = usage.limit;
            usage.reset = (now / 1000) + reset_in_s;
            state.limits.announce(now, usage.reset * 1000);
            rest::errors::primary_limit()
        }
        Fault::SecondaryLimit { retry_after_s } => {
            state
                .limits
                .announce(now, now + retry_after_s.unwrap_or(60) * 1000);
            rest::errors::secondary_limit(*retry_after_s)
        }
        Fault::Forbidden { message } => {
            let permission = if request.path.starts_with("/orgs/") {
                "organization_self_hosted_runners=write"
            } else {
                "administration=write"
            };
            rest::errors::plain(StatusCode::FORBIDDEN, message)
                .header("x-accepted-github-permissions", permission)
        }
        Fault::Redirect { to, code } => {
            let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::TEMPORARY_REDIRECT);
            rest::errors::plain(status, "Moved").header("location", to)
        }
        Fault::Giant { bytes } => {
            let padding = " ".repeat(bytes.saturating_sub(2));
            ApiReply::with_type(
                StatusCode::OK,
                "application/json",
                format!("[{padding}]").into_bytes(),
            )
        }
        Fault::DropBefore | Fault::Garbage { .. } => return Handling::Ignored,
        Fault::Delay { .. }
        | Fault::DropAfter
        | Fault::Truncate { .. }
        | Fault::Reset { .. }
        | Fault::ContentLength { .. }
        | Fault::WrongTypes
        | Fault::SlowDrip { .. } => return Handling::Handled,
    };
    rest::add_common_headers(&mut reply, request);
    rest::add_limit_headers(&mut reply, bucket, usage);
    Handling::Refused(reply)
}

/// Sends `reply` as it is, or damaged by `fault`. Without a reply the connection is closed.
pub(crate) fn send(
    reply: Option<ApiReply>,
    fault: Option<&Fault>,
    connection: &ConnectionHandle,
) -> Response {
    let raw = |bytes: Vec<u8>, end| {
        let bytes = Bytes::from(bytes);
        connection.replace(RawAnswer { bytes, end })
    };
    let Some(reply) = reply else {
        let bytes = match fault {
            Some(Fault::Garbage { bytes }) => crate::random::bytes(*bytes),
            _ => vec![],
        };
        return raw(bytes, ConnectionEnd::Closed);
    };
    let cut = |bytes: usize| {
        let sent = &reply.body[..bytes.min(reply.body.len())];
        [&reply.head(reply.body.len()), sent].concat()
    };
    match fault {
        Some(Fault::DropBefore | Fault::DropAfter) => raw(vec![], ConnectionEnd::Closed),
        Some(Fault::Truncate { bytes }) => raw(cut(*bytes), ConnectionEnd::Closed),
        Some(Fault::Reset { bytes }) => raw(cut(*bytes), ConnectionEnd::Reset),
        Some(Fault::ContentLength { bytes }) => raw(
            [&reply.head(*bytes), &*reply.body].concat(),
            ConnectionEnd::Open,
        ),
        Some(Fault::SlowDrip { bytes_per_s }) => slow_drip(reply, *bytes_per_s),
        Some(Fault::WrongTypes) => {
            let mut reply = reply;
            if let Some(value) = reply.value() {
                reply.body = wrong_types(value).to_string().into();
            }
            reply.into_response()
        }
        None
        | Some(
            Fault::Status { .. }
            | Fault::Delay { .. }
            | Fault::Garbage { .. }
            | Fault::Html502
            | Fault::PrimaryLimit { .. }
            | Fault::SecondaryLimit { .. }
            | Fault::Forbidden { .. }
            | Fault::Redirect { .. }
            | Fault::Giant { .. },
        ) => reply.into_response(),
    }
}

fn slow_drip(reply: ApiReply, bytes_per_s: u32) -> Response {
    let pause = Duration::from_secs(1) / bytes_per_s.max(1);
    let length = HeaderValue::from(reply.body.len());
    let bytes = stream::unfold(reply.body.clone(), move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let byte = rest.split_to(1);
        Some((Ok::<_, Infallible>(byte), rest))
    });
    let mut response = reply.with_body(Body::from_stream(bytes));
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

fn wrong_types(value: Value) -> Value {
    match value {
        Value::Null => Value::Bool(true),
        Value::Bool(yes) => Value::from(if yes { "yes" } else { "no" }),
        Value::Number(number) => Value::from(number.to_string()),
        Value::String(text) => Value::from(text.len()),
        Value::Array(items) => items.into_iter().map(wrong_types).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (key, wrong_types(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
