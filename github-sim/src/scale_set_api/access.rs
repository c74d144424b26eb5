//! Access to the service: the admin token, and what each call must have.

use axum::http::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::errors;
use crate::{
    http::{ApiReply, ApiRequest},
    scale_sets::{ServiceToken, ServiceTokenKind},
    scope::Scope,
    state::GitHubState,
};

const API_VERSION: &str = "6.0-preview";
/// Path of the service below the public URL.
pub(super) const TENANT: &str = "/rest";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistrationBody {
    url: String,
    runner_event: String,
}

/// `POST /actions/runner-registration`
pub(super) fn admin_token(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let refuse = |status: StatusCode, message: &str| {
        ApiReply::json(
            status,
            &json!({"message": message, "status": status.as_u16().to_string()}),
        )
    };
    let given = request
        .header("authorization")
        .and_then(|header| header.strip_prefix("RemoteAuth "))
        .unwrap_or_default();
    let scope = state
        .scale_sets
        .service
        .scope_of(ServiceTokenKind::Registration, given, now)
        .cloned()
        .ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "Bad credentials"))?;
    if request.header("content-type") != Some("application/json") {
        return Err(refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Content-Type must be application/json",
        ));
    }
    let body: RegistrationBody = request
        .json()
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, &error.to_string()))?;
    if body.runner_event != "register" {
        return Err(refuse(
            StatusCode::UNPROCESSABLE_ENTITY,
            "runner_event must be register",
        ));
    }
    let named = body
        .url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('/'))
        .and_then(|(_, path)| path.trim_end_matches('/').parse::<Scope>().ok());
    if named.as_ref() != Some(&scope) {
        return Err(refuse(StatusCode::NOT_FOUND, "Not Found"));
    }
    let expires = now + state.settings.scale_sets.admin_token_ms;
    let token = crate::random::jwt(&json!({
        "nbf": now / 1000,
        "exp": expires / 1000,
        "scp": format!("Actions.ManageScaleSets:{scope}"),
        "jti": crate::random::uuid(),
    }));
    let issued = ServiceToken {
        kind: ServiceTokenKind::Admin,
        token: token.clone(),
        scope,
        expires,
    };
    state.scale_sets.service.issue(issued, now);
    Ok(ApiReply::json(
        StatusCode::OK,
        &json!({"url": format!("{}{TENANT}", state.public_url), "token": token}),
    ))
}

/// Checks version and admin token of a call, and that its query has no other names than `names`. Returns the
/// scope of the token.
pub(super) fn admin(
    state: &GitHubState,
    now: u64,
    request: &ApiRequest,
    names: &[&str],
) -> Result<Scope, ApiReply> {
    check_query(request, names)?;
    let token = request.bearer().ok_or_else(errors::unauthorized)?;
    state
        .scale_sets
        .service
        .scope_of(ServiceTokenKind::Admin, token, now)
        .cloned()
        .ok_or_else(errors::unauthorized)
}

/// Checks that a call has the version, and no other names in its query than `names`.
pub(super) fn check_query(request: &ApiRequest, names: &[&str]) -> Result<(), ApiReply> {
    if request.query_param("api-version") != Some(API_VERSION) {
        return Err(errors::invalid(
            "No api-version was supplied for the request. The version must be supplied either as part of the Accept header or as a query parameter.",
        ));
    }
    let unknown = request
        .query
        .iter()
        .find(|(name, _)| name != "api-version" && !names.contains(&name.as_str()));
    match unknown {
        Some((name, _)) => Err(errors::invalid(&format!("{name} is not a parameter."))),
        None => Ok(()),
    }
}

/// Returns the JSON body of a call.
pub(super) fn body<T: DeserializeOwned>(request: &ApiRequest) -> Result<T, ApiReply> {
    if request.header("content-type") != Some("application/json") {
        return Err(ApiReply::empty(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    request
        .json()
        .map_err(|error| errors::invalid(&error.to_string()))
}

/// Checks version and admin token of a call without parameters for one set. Returns the scope of the token, and
/// the id of the set that the path names, if it is one of the scope.
pub(super) fn admin_of_set(
    state: &GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<(Scope, u64), ApiReply> {
    let scope = admin(state, now, request, &[])?;
    let text = request.path_param("set").unwrap_or_default();
    let id = text.parse().ok();
    let set = id.and_then(|id| state.scale_sets.get(id));
    let set = set.filter(|set| set.scope == scope);
    let id = set.map(|set| set.id).ok_or_else(|| errors::no_set(text))?;
    Ok((scope, id))
}
