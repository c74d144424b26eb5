//! GitHub's error answers.

use axum::http::StatusCode;
use serde_json::json;

use crate::http::ApiReply;

const RUNNER_DOCS: &str = "https://docs.github.com/rest/actions/self-hosted-runners";
const LIMIT_DOCS: &str =
    "https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api";

/// Returns an error in the common shape: message, documentation, status as a string.
pub(crate) fn plain(status: StatusCode, message: &str) -> ApiReply {
    with_docs(status, message, RUNNER_DOCS)
}

pub(crate) fn not_found() -> ApiReply {
    plain(StatusCode::NOT_FOUND, "Not Found")
}

pub(crate) fn unprocessable(message: &str, errors: &[&str]) -> ApiReply {
    let mut body = json!({
        "message": message,
        "documentation_url": RUNNER_DOCS,
        "status": "422",
    });
    if !errors.is_empty() {
        body["errors"] = json!(errors);
    }
    ApiReply::json(StatusCode::UNPROCESSABLE_ENTITY, &body)
}

/// Returns the answer to a request that does not match GitHub's description.
pub(crate) fn invalid(problem: &str) -> ApiReply {
    unprocessable(&format!("Invalid request.\n\n{problem}"), &[])
}

pub(crate) fn primary_limit() -> ApiReply {
    with_docs(
        StatusCode::FORBIDDEN,
        "API rate limit exceeded for user ID 1.",
        LIMIT_DOCS,
    )
}

pub(crate) fn secondary_limit(retry_after_s: Option<u64>) -> ApiReply {
    let reply = with_docs(
        StatusCode::FORBIDDEN,
        "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
        LIMIT_DOCS,
    );
    match retry_after_s {
        Some(seconds) => reply.header("retry-after", &seconds.to_string()),
        None => reply,
    }
}

fn with_docs(status: StatusCode, message: &str, docs: &str) -> ApiReply {
    ApiReply::json(
        status,
        &json!({
            "message": message,
            "documentation_url": docs,
            "status": status.as_u16().to_string(),
        }),
    )
}
