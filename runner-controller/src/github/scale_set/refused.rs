//! The meaning of a failure for set and session.
//!
//! The service names an exception in `typeName`, sometimes with another status than one expects, and not every refusal
//! has a body.

use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use serde::Deserialize;

use super::wire::Reply;
use crate::github::client::Client;
use crate::github::context::request_id;
use crate::pool::SetTrouble;
use crate::world::{RegistryError, RegistryErrorKind, SetError};

/// Maximum pause that an answer can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Body {
    type_name: String,
    message: String,
}

fn kind(status: StatusCode) -> RegistryErrorKind {
    match status {
        StatusCode::UNAUTHORIZED => RegistryErrorKind::Unauthorized,
        StatusCode::FORBIDDEN => RegistryErrorKind::Forbidden,
        StatusCode::NOT_FOUND => RegistryErrorKind::NotFound,
        StatusCode::CONFLICT => RegistryErrorKind::NameTaken,
        StatusCode::TOO_MANY_REQUESTS => RegistryErrorKind::Limited,
        _ if status.is_client_error() => RegistryErrorKind::Invalid,
        _ => RegistryErrorKind::Server,
    }
}

/// Returns the failure that a refusal means.
pub(super) fn read(client: &Client, reply: &Reply) -> SetError {
    let body: Body = serde_json::from_slice(&reply.body).unwrap_or_default();
    let kind = kind(reply.status);
    let retry_after = reply.headers.get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    let exception = body.type_name.split([',', ' ']).next().unwrap_or_default();
    let exception = exception.rsplit('.').next().unwrap_or_default();
    let message = match (body.message.as_str(), exception) {
        ("", "") => format!("the scale-set service answered {}", reply.status),
        (message, "") => message.to_owned(),
        (message, exception) => format!("{message} ({exception})"),
    };
    let error = client.context.error(reply.operation, kind, &message);
    SetError {
        trouble: trouble(reply.status, exception, retry_after),
        error: Box::new(RegistryError {
            status: Some(reply.status.as_u16()),
            request_id: request_id(&reply.headers),
            retry_after,
            ..error
        }),
    }
}

fn trouble(status: StatusCode, exception: &str, retry_after: Option<Duration>) -> SetTrouble {
    match (exception, status) {
        ("RunnerScaleSetSessionConflictException", _) => SetTrouble::Occupied,
        ("RunnerScaleSetNotFoundException", _) => SetTrouble::SetLost,
        ("RunnerScaleSetSessionExpiredException", _)
        | ("RunnerAdminException", StatusCode::NOT_FOUND) => SetTrouble::SessionLost,
        // Another program created the set meanwhile.
        ("RunnerScaleSetExistsException", _) => SetTrouble::Passing(retry_after),
        (_, StatusCode::TOO_MANY_REQUESTS) => SetTrouble::Passing(retry_after),
        _ if status.is_server_error() => SetTrouble::Passing(retry_after),
        _ => SetTrouble::Refused,
    }
}

/// Returns the failure of a call that got no whole answer, or one of another call on the way.
pub(super) fn failed(error: RegistryError) -> SetError {
    let trouble = match error.kind {
        RegistryErrorKind::Limited
        | RegistryErrorKind::Server
        | RegistryErrorKind::NameTaken
        | RegistryErrorKind::Unreachable => SetTrouble::Passing(error.retry_after),
        RegistryErrorKind::Unauthorized
        | RegistryErrorKind::Forbidden
        | RegistryErrorKind::NotFound
        | RegistryErrorKind::Invalid => SetTrouble::Refused,
    };
    SetError {
        trouble,
        error: Box::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_tells_more_than_a_status() {
        let of = |status: u16, exception: &str| {
            trouble(StatusCode::from_u16(status).unwrap(), exception, None)
        };
        for (status, exception, meaning) in [
            (
                409,
                "RunnerScaleSetSessionConflictException",
                SetTrouble::Occupied,
            ),
            (404, "RunnerScaleSetNotFoundException", SetTrouble::SetLost),
            (404, "RunnerAdminException", SetTrouble::SessionLost),
            (
                400,
                "RunnerScaleSetSessionExpiredException",
                SetTrouble::SessionLost,
            ),
            (
                400,
                "RunnerScaleSetExistsException",
                SetTrouble::Passing(None),
            ),
            (503, "", SetTrouble::Passing(None)),
            (429, "", SetTrouble::Passing(None)),
            // A wrong address or a proxy answers 404, too, and no set is lost by that.
            (404, "", SetTrouble::Refused),
            (401, "UnauthorizedRequestException", SetTrouble::Refused),
        ] {
            assert_eq!(of(status, exception), meaning, "{status} {exception}");
        }
    }
}
