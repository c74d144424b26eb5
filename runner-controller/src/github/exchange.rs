//! One request and its answer through octocrab.

use http::{HeaderMap, Method, StatusCode};
use octocrab::{FromResponse, Octocrab};
use serde_json::error::Category;

use super::context::{Context, with_causes};
use super::layers::NotModified;
use super::operation::Operation;
use super::token::Token;
use crate::world::{RegistryError, RegistryErrorKind};

/// A request to send.
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) body: Option<serde_json::Value>,
}

/// A success.
pub(super) struct Answer<T> {
    pub(super) status: StatusCode,
    /// GitHub answered 304, and the body is what the cache remembered.
    pub(super) not_modified: bool,
    pub(super) headers: HeaderMap,
    pub(super) body: T,
}

/// The body of an answer that is not read.
pub(super) struct Unread;

impl FromResponse for Unread {
    async fn from_response<B>(_: http::Response<B>) -> octocrab::Result<Self>
    where
        B: hyper::body::Body<Data = hyper::body::Bytes, Error = octocrab::Error> + Send,
    {
        Ok(Self)
    }
}

/// Sends a request with this token and reads the answer. Sends it once, except that redirects within
/// the origin are followed. Cancelling drops the connection, but GitHub may still carry the request
/// out.
///
/// octocrab's typed calls (`post`, `get`) cannot carry the operation to the layers, and lose the
/// status and the request id when an answer cannot be read. `build_request` and `execute`, which
/// those calls consist of, can.
pub(super) async fn exchange<T: FromResponse>(
    octocrab: &Octocrab,
    token: &Token,
    request: &Request,
    context: &Context,
) -> Result<Answer<T>, RegistryError> {
    let operation = request.operation;
    let failed = |error| failure(context, operation, error);
    let octocrab = octocrab.user_access_token(token.expose()).map_err(failed)?;
    let builder = http::request::Builder::new()
        .method(request.method.clone())
        // octocrab shows the token to addresses without a host alone (octocrab 0.54.9,
        // src/lib.rs:2653). A layer adds the host.
        .uri(&request.target)
        .extension(operation);
    let built = octocrab.build_request(builder, request.body.as_ref());
    let response = octocrab.execute(built.map_err(failed)?).await;
    let response = response.map_err(failed)?;

    let status = response.status();
    let headers = response.headers().clone();
    let not_modified = response.extensions().get::<NotModified>().is_some();
    let body = T::from_response(response)
        .await
        .map_err(|error| context.misshapen(operation, status, &headers, &shape_problem(&error)))?;
    Ok(Answer {
        status,
        not_modified,
        headers,
        body,
    })
}

/// Returns the error that the layers made. octocrab itself fails only if a request cannot be built.
fn failure(context: &Context, operation: Operation, error: octocrab::Error) -> RegistryError {
    let octocrab::Error::Service { source, .. } = error else {
        return context.error(operation, RegistryErrorKind::Invalid, &error.to_string());
    };
    match source.downcast::<RegistryError>() {
        Ok(error) => *error,
        Err(error) => context.unreachable(operation, &with_causes(&*error)),
    }
}

/// Describes how an answer differs from GitHub's documentation, without quoting it.
fn shape_problem(error: &octocrab::Error) -> String {
    let octocrab::Error::Json { source, .. } = error else {
        return "the answer cannot be read".to_owned();
    };
    let error = source.inner();
    let what = match error.classify() {
        Category::Data => "has other fields or types than GitHub documents",
        Category::Eof => "is JSON that breaks off",
        Category::Io | Category::Syntax => "is not JSON",
    };
    let (line, column) = (error.line(), error.column());
    format!("the answer {what} (line {line}, column {column})")
}
