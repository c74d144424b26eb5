//! Errors of the service. Their form is that of Azure DevOps, from which the service comes.

use axum::http::StatusCode;
use serde_json::json;

use crate::http::ApiReply;

/// Returns an error of the scale-set service.
pub(super) fn runtime(status: StatusCode, kind: &str, message: &str) -> ApiReply {
    exception(status, "GitHub.Actions.Runtime.WebApi", kind, message)
}

/// Returns an error of the runner pool.
pub(super) fn task(status: StatusCode, kind: &str, message: &str) -> ApiReply {
    exception(status, "GitHub.DistributedTask.WebApi", kind, message)
}

/// Returns the refusal of a request that the service cannot read.
pub(super) fn invalid(message: &str) -> ApiReply {
    exception(
        StatusCode::BAD_REQUEST,
        "GitHub.Services.Common",
        "VssPropertyValidationException",
        message,
    )
}

pub(super) fn unauthorized() -> ApiReply {
    exception(
        StatusCode::UNAUTHORIZED,
        "GitHub.Services.Security",
        "UnauthorizedRequestException",
        "The token is not valid or has expired.",
    )
}

pub(super) fn no_set(id: &str) -> ApiReply {
    runtime(
        StatusCode::NOT_FOUND,
        "RunnerScaleSetNotFoundException",
        &format!("No runner scale set found with identifier {id}."),
    )
}

fn exception(status: StatusCode, assembly: &str, kind: &str, message: &str) -> ApiReply {
    ApiReply::json(
        status,
        &json!({
            "$id": "1",
            "innerException": null,
            "message": message,
            "typeName": format!("{assembly}.{kind}, {assembly}"),
            "typeKey": kind,
            "errorCode": 0,
            "eventId": 3000,
        }),
    )
}
