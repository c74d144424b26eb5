//! The message queue of a set, and the jobs that a set acquires.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{access, errors, sets};
use crate::{
    http::{ApiReply, ApiRequest},
    scale_set_settings::ScaleSetMode,
    scale_sets::{self, ScaleSet, Statistics},
    state::{GitHubState, Hub},
};

const ACCEPTED: &str = "application/json; api-version=6.0-preview";
const CAPACITY: &str = "x-scalesetmaxcapacity";

/// One poll in flight. It also ends when the client closes the connection.
struct Poll {
    hub: Arc<Hub>,
    set: u64,
    session: String,
}

impl Poll {
    fn begin(hub: &Arc<Hub>, request: &ApiRequest, capacity: u64) -> Result<Self, ApiReply> {
        hub.change(|state, now| {
            let set = set_of(state, now, request)?;
            let id = set.id;
            let session = set.session.as_mut().ok_or_else(errors::unauthorized)?;
            session.polls += 1;
            session.last_contact = now;
            session.capacity = capacity;
            Ok(Self {
                hub: Arc::clone(hub),
                set: id,
                session: session.id.clone(),
            })
        })
    }

    /// Returns the message after `cursor`. No other task waits for it, so none is woken.
    fn message(&self, cursor: u64) -> Result<Option<Value>, ApiReply> {
        self.hub.note(|state, now| {
            let GitHubState {
                scale_sets,
                jobs,
                runners,
                settings,
                ..
            } = state;
            let current = |set: &&mut ScaleSet| {
                set.session
                    .as_ref()
                    .is_some_and(|session| session.id == self.session)
            };
            let set = scale_sets
                .get_mut(self.set)
                .filter(current)
                .ok_or_else(errors::unauthorized)?;
            let counts = Statistics::of(set, jobs, runners, settings, now);
            let counts = serde_json::to_value(counts).unwrap_or(Value::Null);
            let message = set.message_after(cursor, || counts);
            Ok(message.map(|(id, message)| {
                json!({
                    "messageId": id,
                    "messageType": "RunnerScaleSetJobMessages",
                    "body": message.body,
                    "statistics": message.statistics,
                })
            }))
        })
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        self.hub.change(|state, now| {
            let set = state.scale_sets.get_mut(self.set);
            let session = set.and_then(|set| set.session.as_mut());
            if let Some(session) = session.filter(|session| session.id == self.session) {
                session.polls = session.polls.saturating_sub(1);
                session.last_contact = now;
            }
        });
    }
}

/// `GET /scalesets/message`
pub(super) async fn poll(hub: &Arc<Hub>, request: &ApiRequest) -> ApiReply {
    let (cursor, capacity) = match read_poll(request) {
        Ok(read) => read,
        Err(refusal) => return refusal,
    };
    let mut changes = hub.watch();
    let poll = match Poll::begin(hub, request, capacity) {
        Ok(poll) => poll,
        Err(refusal) => return refusal,
    };
    let hold = hub.read(|state, _| {
        let holds = &state.settings.scale_sets.poll_hold_ms;
        let pick = rand::random_range(0..holds.len().max(1));
        holds.get(pick).copied().unwrap_or(0)
    });
    let deadline = tokio::time::Instant::now() + Duration::from_millis(hold);
    loop {
        changes.borrow_and_update();
        match poll.message(cursor) {
            Ok(None) => {}
            Ok(Some(message)) => return ApiReply::json(StatusCode::OK, &message),
            Err(refusal) => return refusal,
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(deadline) => return ApiReply::empty(StatusCode::ACCEPTED),
        }
    }
}

/// Returns cursor and capacity of a poll.
fn read_poll(request: &ApiRequest) -> Result<(u64, u64), ApiReply> {
    let known = ["lastMessageId", "sessionId"];
    if let Some((name, _)) = request
        .query
        .iter()
        .find(|(name, _)| !known.contains(&name.as_str()))
    {
        return Err(errors::invalid(&format!("{name} is not a parameter.")));
    }
    let cursor = match request.query_param("lastMessageId") {
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| errors::invalid("lastMessageId must be a number."))?,
    };
    if request.header("accept") != Some(ACCEPTED) {
        return Err(errors::invalid(&format!("Accept must be {ACCEPTED}.")));
    }
    let capacity = request
        .header(CAPACITY)
        .and_then(|text| text.parse::<u32>().ok())
        .ok_or_else(|| errors::invalid("X-ScaleSetMaxCapacity must be a number."))?;
    Ok((cursor, capacity.into()))
}

/// Returns the set of the queue token. A URL with a session must name the token's.
fn set_of<'a>(
    state: &'a mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<&'a mut ScaleSet, ApiReply> {
    let token = request.bearer().ok_or_else(errors::unauthorized)?;
    let names_session = state.settings.scale_sets.mode == ScaleSetMode::Acquire;
    let named = request.query_param("sessionId").map(str::to_owned);
    let set = state
        .scale_sets
        .by_queue_token(token, now)
        .ok_or_else(errors::unauthorized)?;
    let own = set.session.as_ref().map(|session| session.id.clone());
    let expected = own.filter(|_| names_session);
    if named != expected {
        return Err(errors::invalid("sessionId is not that of the queue's URL."));
    }
    Ok(set)
}

/// `DELETE /scalesets/message/{message}`
pub(super) fn acknowledge(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let set = set_of(state, now, request)?;
    let message = request.path_param("message").unwrap_or_default();
    let known = message.parse().ok();
    if known.and_then(|id: u64| set.messages.remove(&id)).is_none() {
        return Err(errors::runtime(
            StatusCode::NOT_FOUND,
            "MessageNotFoundException",
            &format!("No message found with identifier {message}."),
        ));
    }
    if let Some(session) = &mut set.session {
        session.last_contact = now;
    }
    Ok(ApiReply::empty(StatusCode::NO_CONTENT))
}

/// `POST …/{set}/acquirejobs`. github.com has no such route any more.
pub(super) fn acquire(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    if state.settings.scale_sets.mode == ScaleSetMode::Auto {
        return Err(ApiReply::empty(StatusCode::NOT_FOUND));
    }
    access::check_query(request, &[])?;
    let token = request.bearer().ok_or_else(errors::unauthorized)?;
    let set = state
        .scale_sets
        .by_queue_token(token, now)
        .map(|set| set.id)
        .ok_or_else(errors::unauthorized)?;
    let named = request.path_param("set").unwrap_or_default();
    if named != set.to_string() {
        return Err(errors::no_set(named));
    }
    let requests: Vec<u64> = access::body(request)?;
    let won = state.scale_sets.acquire(set, &requests, &state.jobs, now);
    Ok(sets::listed(won.into_iter().map(Value::from).collect()))
}

/// `GET …/{set}/acquirablejobs`
pub(super) fn acquirable(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let (_, id) = access::admin_of_set(state, now, request)?;
    let offers = state.scale_sets.get(id).map(|set| set.offers.clone());
    let url = scale_sets::acquire_url(&state.public_url, id);
    let shown: Vec<Value> = offers
        .into_iter()
        .flatten()
        .filter_map(|(job, offer)| {
            let job = state.jobs.get(&job)?;
            Some(scale_sets::available(job, offer, &url))
        })
        .collect();
    if shown.is_empty() {
        return Ok(ApiReply::empty(StatusCode::NO_CONTENT));
    }
    Ok(sets::listed(shown))
}
