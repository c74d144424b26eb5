//! Deliveries of hooks: their list, one of them, and another attempt.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::errors;
use crate::{
    http::{ApiReply, ApiRequest},
    scope::Scope,
    state::GitHubState,
    time::rfc3339,
    webhooks::{Attempt, Delivery, HookTarget},
};

const DEFAULT_PAGE: usize = 30;
const LARGEST_PAGE: usize = 100;
/// Start of a cursor. The rest is the id of the first delivery of the page.
const CURSOR: &str = "v1_";

/// `GET …/deliveries`
pub(super) fn list(
    state: &GitHubState,
    now: u64,
    scope: Option<&Scope>,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let hook = hook_of(state, scope, request)?;
    let first: Option<u64> = match request.query_param("cursor") {
        None => None,
        Some(cursor) => Some(
            cursor
                .strip_prefix(CURSOR)
                .and_then(|id| id.parse().ok())
                .ok_or_else(|| errors::plain(StatusCode::BAD_REQUEST, "Invalid cursor"))?,
        ),
    };
    let size = match request.query_param("per_page").map(str::parse) {
        None | Some(Ok(0)) => DEFAULT_PAGE,
        Some(Ok(size)) => LARGEST_PAGE.min(size),
        Some(Err(_)) => return Err(errors::invalid("per_page is not a number.")),
    };
    let status = request.query_param("status");
    let mut found = kept(state, now, hook)
        .rev()
        .filter(|(delivery, _)| first.is_none_or(|first| delivery.id <= first))
        .filter(|(_, attempt)| {
            status.is_none_or(|status| attempt.succeeded() == (status == "success"))
        });
    let page: Vec<Value> = found.by_ref().take(size).map(|(d, a)| show(d, a)).collect();
    let reply = ApiReply::json(StatusCode::OK, &page);
    Ok(match found.next() {
        None => reply,
        Some((next, _)) => {
            let status = status.map_or_else(String::new, |status| format!("&status={status}"));
            let url = format!("{}{}", state.public_url, request.path);
            let query = format!("per_page={size}&cursor={CURSOR}{}{status}", next.id);
            reply.header("link", &format!("<{url}?{query}>; rel=\"next\""))
        }
    })
}

/// `GET …/deliveries/{delivery_id}`
pub(super) fn get(
    state: &GitHubState,
    now: u64,
    scope: Option<&Scope>,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let (delivery, attempt) = find(state, now, scope, request)?;
    let mut shown = show(delivery, attempt);
    let headers: Value = delivery
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let payload: Value = serde_json::from_str(&delivery.body).unwrap_or_default();
    let hook = state.webhooks.hooks().find(|hook| hook.id == delivery.hook);
    shown["url"] = hook.map_or("", |hook| hook.spec.url.as_str()).into();
    shown["request"] = json!({"headers": headers, "payload": payload});
    shown["response"] = json!({"headers": {}, "payload": attempt.response});
    Ok(ApiReply::json(StatusCode::OK, &shown))
}

/// `POST …/deliveries/{delivery_id}/attempts`
pub(super) fn repeat(
    state: &mut GitHubState,
    now: u64,
    scope: Option<&Scope>,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let id = find(state, now, scope, request)?.0.id;
    state.webhooks.repeat(id, now);
    Ok(ApiReply::json(StatusCode::ACCEPTED, &json!({})))
}

/// Returns the id of the hook that the path names.
fn hook_of(
    state: &GitHubState,
    scope: Option<&Scope>,
    request: &ApiRequest,
) -> Result<u64, ApiReply> {
    let target = scope.map_or(HookTarget::App, |scope| HookTarget::Scope(scope.clone()));
    let id = match (scope, request.path_param("hook_id")) {
        (None, _) => None,
        (Some(_), text) => Some(
            text.and_then(|text| text.parse().ok())
                .ok_or_else(errors::not_found)?,
        ),
    };
    state
        .webhooks
        .find(&target, id)
        .map(|hook| hook.id)
        .ok_or_else(errors::not_found)
}

fn find<'a>(
    state: &'a GitHubState,
    now: u64,
    scope: Option<&Scope>,
    request: &ApiRequest,
) -> Result<(&'a Delivery, &'a Attempt), ApiReply> {
    let hook = hook_of(state, scope, request)?;
    let id: Option<u64> = request
        .path_param("delivery_id")
        .and_then(|text| text.parse().ok());
    kept(state, now, hook)
        .find(|(delivery, _)| Some(delivery.id) == id)
        .ok_or_else(errors::not_found)
}

/// Returns the deliveries of a hook that were sent, oldest first, as far as GitHub keeps them.
fn kept(
    state: &GitHubState,
    now: u64,
    hook: u64,
) -> impl DoubleEndedIterator<Item = (&Delivery, &Attempt)> {
    let retention = state.settings.webhooks.retention_ms;
    state.webhooks.deliveries().filter_map(move |delivery| {
        let attempt = delivery.attempt.as_ref()?;
        (delivery.hook == hook && now < attempt.at + retention).then_some((delivery, attempt))
    })
}

fn show(delivery: &Delivery, attempt: &Attempt) -> Value {
    json!({
        "id": delivery.id,
        "guid": delivery.guid,
        "delivered_at": rfc3339(attempt.at),
        "redelivery": delivery.redelivery,
        "duration": std::time::Duration::from_millis(attempt.duration_ms).as_secs_f64(),
        "status": attempt.status,
        "status_code": attempt.code,
        "event": delivery.event,
        "action": delivery.action,
        "installation_id": delivery.installation,
        "repository_id": delivery.repository,
        "throttled_at": null,
    })
}
