//! Endpoints of GitHub Apps: a JWT gives access to the App's installation and to its tokens.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::errors;
use crate::{
    github_app::{self, Grant, InstallationToken},
    http::{ApiReply, ApiRequest},
    random,
    scope::Scope,
    settings::Settings,
    state::GitHubState,
};

const SLUG: &str = "stand-in";

/// Checks that an installation token has a permission in a scope. The error is GitHub's.
pub(crate) fn check_token(
    state: &GitHubState,
    token: &InstallationToken,
    scope: &Scope,
    permission: (&str, &str),
) -> Result<(), ApiReply> {
    if state.settings.app_suspended {
        return Err(suspended());
    }
    if installation_of(state, scope) != Some(token.installation) {
        return Err(errors::not_found());
    }
    match token.grant(scope, permission) {
        Grant::Given => Ok(()),
        Grant::Hidden => Err(errors::not_found()),
        Grant::Forbidden => Err(errors::plain(
            StatusCode::FORBIDDEN,
            "Resource not accessible by integration",
        )),
    }
}

/// Checks the JWT of a request. The error is GitHub's.
pub(crate) fn check_jwt(
    state: &GitHubState,
    request: &ApiRequest,
    now: u64,
) -> Result<(), ApiReply> {
    let refuse = |message: &str| errors::plain(StatusCode::UNAUTHORIZED, message);
    let jwt = request
        .bearer()
        .ok_or_else(|| refuse("A JSON web token could not be decoded"))?;
    match &state.app {
        None => Err(refuse("Integration not found")),
        Some(app) => app.check(jwt, now / 1000).map_err(refuse),
    }
}

/// `GET …/installation`
pub(crate) fn installation(state: &GitHubState, scope: &Scope) -> Result<ApiReply, ApiReply> {
    let app = state.app.as_ref().ok_or_else(errors::not_found)?;
    let id = installation_of(state, scope).ok_or_else(errors::not_found)?;
    let account = scope.owner();
    let url = &state.public_url;
    let at = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH).to_string();
    let suspended_at = state.settings.app_suspended.then(|| at.clone());
    Ok(ApiReply::json(
        StatusCode::OK,
        &json!({
            "id": id,
            "account": null,
            "repository_selection": "all",
            "access_tokens_url": format!("{url}/app/installations/{id}/access_tokens"),
            "repositories_url": format!("{url}/installation/repositories"),
            "html_url": format!("{url}/{account}/settings/installations/{id}"),
            "app_id": app.id,
            "client_id": app.client_id,
            "app_slug": SLUG,
            "target_id": id,
            "target_type": "Organization",
            "permissions": state.settings.app_permissions,
            "events": [],
            "created_at": at,
            "updated_at": at,
            "single_file_name": null,
            "suspended_by": null,
            "suspended_at": suspended_at,
        }),
    ))
}

/// `POST /app/installations/{id}/access_tokens`
pub(crate) fn access_token(
    state: &mut GitHubState,
    now: u64,
    id: &str,
    body: &Value,
) -> Result<ApiReply, ApiReply> {
    let id: u64 = id.parse().map_err(|_| errors::not_found())?;
    let app = state.app.as_ref().ok_or_else(errors::not_found)?;
    let here: Vec<&Scope> = state
        .scopes
        .iter()
        .filter(|scope| installation_of(state, scope) == Some(id))
        .collect();
    if here.is_empty() {
        return Err(errors::not_found());
    }
    if state.settings.app_suspended {
        return Err(suspended());
    }
    let repositories: Option<Vec<String>> = body["repositories"].as_array().map(|names| {
        names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    });
    let exists = |wanted: &String| {
        here.iter()
            .any(|scope| matches!(scope, Scope::Repository { name, .. } if name.eq_ignore_ascii_case(wanted)))
    };
    if !repositories.iter().flatten().all(exists) {
        return Err(errors::unprocessable(
            "There is at least one repository that does not exist or is not accessible to the parent installation.",
            &[],
        ));
    }
    let permissions = granted(&state.settings, &body["permissions"])?;
    let issued = InstallationToken {
        token: format!("ghs_{}_{}", app.id, random::text(360)),
        installation: id,
        expires_ms: now + state.settings.app_token_ms,
        permissions,
        repositories,
    };
    let expires = std::time::UNIX_EPOCH + std::time::Duration::from_millis(issued.expires_ms);
    let reply = ApiReply::json(
        StatusCode::CREATED,
        &json!({
            "token": issued.token,
            "expires_at": humantime::format_rfc3339_seconds(expires).to_string(),
            "permissions": issued.permissions,
            "repository_selection": if issued.repositories.is_some() { "selected" } else { "all" },
        }),
    );
    state
        .installation_tokens
        .retain(|other| other.is_valid(now));
    state.installation_tokens.push(issued);
    Ok(reply)
}

/// Returns the permissions that a token gets: those asked for, or all of the installation's.
fn granted(settings: &Settings, asked: &Value) -> Result<BTreeMap<String, String>, ApiReply> {
    let Some(asked) = asked.as_object() else {
        return Ok(settings.app_permissions.clone());
    };
    let has = |(name, level): (&String, &Value)| match settings.app_permissions.get(name) {
        Some(held) => level == held || level == "read",
        None => false,
    };
    if !asked.iter().all(has) {
        return Err(errors::unprocessable(
            "The permissions requested are not granted to this installation.",
            &[],
        ));
    }
    let text = |level: &Value| level.as_str().unwrap_or_default().to_owned();
    Ok(asked
        .iter()
        .map(|(name, level)| (name.clone(), text(level)))
        .collect())
}

fn suspended() -> ApiReply {
    errors::plain(
        StatusCode::FORBIDDEN,
        "This installation has been suspended",
    )
}

/// Returns the installation of a scope.
fn installation_of(state: &GitHubState, scope: &Scope) -> Option<u64> {
    let known = state.scopes.contains(scope);
    known
        .then(|| github_app::installation_of(&state.scopes, scope.owner()))
        .flatten()
}
