//! One request to the service.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use octocrab::OctoBody;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;
use tower::ServiceExt as _;
use url::Url;

use crate::github::client::Client;
use crate::github::context::with_causes;
use crate::github::operation::{Operation, outcome_of};
use crate::github::transport::Transport;
use crate::world::{RegistryError, RegistryErrorKind};

/// A request to the service.
pub(super) struct Call<'c> {
    pub(super) operation: Operation,
    pub(super) method: Method,
    pub(super) url: &'c Url,
    /// Scheme and secret, such as `Bearer …`.
    pub(super) authorization: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Value>,
    pub(super) timeout: Duration,
}

/// A whole answer, a refusal included.
pub(super) struct Reply {
    pub(super) operation: Operation,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// Reads the body as JSON. The service may begin it with a byte order mark.
    pub(super) fn read<T: DeserializeOwned>(&self, client: &Client) -> Result<T, RegistryError> {
        let body = self
            .body
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(&self.body);
        serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let problem =
                format!("the answer cannot be read as expected (line {line}, column {column})");
            self.misshapen(client, &problem)
        })
    }

    /// Returns the error for an answer that is not as expected. `problem` must not quote the answer.
    pub(super) fn misshapen(&self, client: &Client, problem: &str) -> RegistryError {
        let error = client
            .context
            .error(self.operation, RegistryErrorKind::Server, problem);
        RegistryError {
            status: Some(self.status.as_u16()),
            request_id: crate::github::context::request_id(&self.headers),
            ..error
        }
    }
}

/// Sends a request once and returns the whole answer. Follows no redirect, because a token stays at its server.
/// Cancelling drops the connection.
pub(super) async fn send(
    transport: Transport,
    client: &Client,
    call: Call<'_>,
) -> Result<Reply, RegistryError> {
    let operation = call.operation;
    let timeout = call.timeout;
    let began = Instant::now();
    let sent = tokio::time::timeout(timeout, exchange(transport, client, call)).await;
    let result = sent.unwrap_or_else(|_| {
        let limit = humantime::format_duration(timeout);
        let message = format!("no complete answer within {limit}");
        Err(client.context.unreachable(operation, &message))
    });
    let outcome = match &result {
        Ok(reply) if reply.status.is_success() => "ok",
        Ok(reply) => outcome(reply.status),
        Err(error) => outcome_of(error),
    };
    client.usage.count(operation, outcome);
    // The service answers a poll when it has a message, so its time says nothing of the service.
    if result.is_ok() && operation != Operation::SetPoll {
        client.usage.time(operation, began.elapsed());
    }
    result
}

async fn exchange(
    transport: Transport,
    client: &Client,
    call: Call<'_>,
) -> Result<Reply, RegistryError> {
    let operation = call.operation;
    let invalid = |problem: &str| {
        client
            .context
            .error(operation, RegistryErrorKind::Invalid, problem)
    };
    let mut authorization = HeaderValue::try_from(call.authorization)
        .map_err(|_| invalid("the token does not fit into a header"))?;
    authorization.set_sensitive(true);
    let body = call.body.map(|body| body.to_string());
    let mut request = http::Request::builder()
        .method(call.method)
        .uri(call.url.as_str())
        .body(body.map_or_else(OctoBody::empty, OctoBody::from))
        .map_err(|_| invalid("the address of the service is not valid"))?;
    let headers = request.headers_mut();
    headers.extend(call.headers);
    headers.insert(AUTHORIZATION, authorization);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, user_agent());
    let unreachable = |error: &(dyn std::error::Error + 'static)| {
        client.context.unreachable(operation, &with_causes(error))
    };
    let response = transport.oneshot(request).await;
    let response = response.map_err(|error| unreachable(&*error))?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| unreachable(&*error))?;
    Ok(Reply {
        operation,
        status: parts.status,
        headers: parts.headers,
        body: body.to_bytes(),
    })
}

/// Returns the name of this program in the form that the service logs.
fn user_agent() -> HeaderValue {
    const AGENT: &str = concat!(
        r#"{"system":"runner-controller","version":""#,
        env!("CARGO_PKG_VERSION"),
        r#"","subsystem":"scale-set","kind":"scaleset"}"#
    );
    HeaderValue::from_static(AGENT)
}

/// Returns the outcome of a refusal in the counts of calls.
fn outcome(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::CONFLICT => "name_taken",
        StatusCode::TOO_MANY_REQUESTS => "limited",
        _ if status.is_server_error() => "server",
        _ => "invalid",
    }
}
