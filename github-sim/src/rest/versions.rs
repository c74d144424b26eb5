//! The dates from which GitHub refuses a version of the runner.

use axum::http::StatusCode;
use serde_json::json;

use super::errors;
use crate::{
    http::{ApiReply, ApiRequest},
    state::GitHubState,
};

/// Returns the dates of a version. GitHub's answer for a version that it does not know is not recorded; it is a
/// 404 here.
pub(super) fn get(state: &GitHubState, request: &ApiRequest) -> Result<ApiReply, ApiReply> {
    let version = request.path_param("version").unwrap_or("");
    let dates = state.settings.runner_versions.get(version);
    let dates = dates.ok_or_else(errors::not_found)?;
    Ok(ApiReply::json(
        StatusCode::OK,
        &json!({
            "runner_version": version,
            "registration_deprecates_at": dates.registration_deprecates_at,
            "runtime_deprecates_at": dates.runtime_deprecates_at,
        }),
    ))
}
