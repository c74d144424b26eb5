//! Sessions: one for each set.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{access, errors, sets};
use crate::{
    http::{ApiReply, ApiRequest},
    scale_set_settings::ScaleSetMode,
    scale_sets::{ScaleSet, SetSession},
    state::GitHubState,
};

const NIL: &str = "00000000-0000-0000-0000-000000000000";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SessionBody {
    owner_name: String,
    #[serde(default)]
    session_id: Option<String>,
}

/// `POST …/{set}/sessions`
pub(super) fn open(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let (_, id) = access::admin_of_set(state, now, request)?;
    let body: SessionBody = access::body(request)?;
    if body.owner_name.trim().is_empty() || body.session_id.is_some_and(|id| id != NIL) {
        return Err(errors::invalid(
            "A new session has an ownerName, and no sessionId or a nil one.",
        ));
    }
    let service = &state.settings.scale_sets;
    let (lapse, token_expires) = (service.session_lapse_ms, now + service.queue_token_ms);
    let Some(set) = state.scale_sets.get_mut(id) else {
        return Err(errors::no_set(&id.to_string()));
    };
    if let Some(session) = &set.session
        && session.is_alive(now, lapse)
    {
        return Err(errors::runtime(
            StatusCode::CONFLICT,
            "RunnerScaleSetSessionConflictException",
            &format!(
                "The runner scale set {} already has an active session for owner {}.",
                set.name, session.owner
            ),
        ));
    }
    set.session = Some(SetSession {
        id: crate::random::uuid(),
        owner: body.owner_name,
        token: queue_token(id, token_expires),
        token_expires,
        capacity: 0,
        polls: 0,
        last_contact: now,
    });
    shown(state, id, now)
}

/// `PATCH …/{set}/sessions/{session}`
pub(super) fn refresh(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let (_, id) = access::admin_of_set(state, now, request)?;
    let token_expires = now + state.settings.scale_sets.queue_token_ms;
    let set = state.scale_sets.get_mut(id);
    match own_session(set, request) {
        Some(session) => {
            session.token = queue_token(id, token_expires);
            session.token_expires = token_expires;
            session.last_contact = now;
        }
        None => {
            return Err(errors::runtime(
                StatusCode::NOT_FOUND,
                "RunnerAdminException",
                "The request contains a session ID that doesn't exist in redis.",
            ));
        }
    }
    shown(state, id, now)
}

/// `DELETE …/{set}/sessions/{session}`
pub(super) fn close(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let (_, id) = access::admin_of_set(state, now, request)?;
    let Some(set) = state.scale_sets.get_mut(id) else {
        return Err(errors::no_set(&id.to_string()));
    };
    if own_session(Some(&mut *set), request).is_none() {
        return Err(errors::runtime(
            StatusCode::BAD_REQUEST,
            "RunnerScaleSetSessionExpiredException",
            "The session has expired.",
        ));
    }
    set.session = None;
    Ok(ApiReply::empty(StatusCode::NO_CONTENT))
}

fn own_session<'a>(
    set: Option<&'a mut ScaleSet>,
    request: &ApiRequest,
) -> Option<&'a mut SetSession> {
    set?.session
        .as_mut()
        .filter(|session| request.path_param("session") == Some(&session.id))
}

fn queue_token(set: u64, expires: u64) -> String {
    crate::random::jwt(&json!({
        "exp": expires / 1000,
        "scp": format!("Actions.ScaleSetQueue:{set}"),
        "jti": crate::random::uuid(),
    }))
}

fn shown(state: &GitHubState, id: u64, now: u64) -> Result<ApiReply, ApiReply> {
    let set = state.scale_sets.get(id);
    let (set, session) = set
        .and_then(|set| Some((set, set.session.as_ref()?)))
        .ok_or_else(|| errors::no_set(&id.to_string()))?;
    let url = match state.settings.scale_sets.mode {
        _ if state.settings.scale_sets.empty_queue_url => String::new(),
        // The token is the identity.
        ScaleSetMode::Auto => format!("{}/scalesets/message", state.public_url),
        ScaleSetMode::Acquire => {
            format!(
                "{}/scalesets/message?sessionId={}",
                state.public_url, session.id
            )
        }
    };
    let mut body = json!({
        "sessionId": session.id,
        "ownerName": session.owner,
        "runnerScaleSet": sets::show(state, set, now),
        "messageQueueUrl": url,
        "messageQueueAccessToken": session.token,
    });
    body["statistics"] =
        serde_json::to_value(sets::statistics(state, set, now)).unwrap_or(Value::Null);
    Ok(ApiReply::json(StatusCode::OK, &body))
}
