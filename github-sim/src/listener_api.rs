//! Endpoints that listeners call: token, session and messages. `run_api` has those of a job.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    client_assertion,
    endpoint::Endpoint,
    http::{ApiReply, ApiRequest},
    run_api,
    state::{AccessToken, GitHubState, Hub, ListenerSession, RegisteredRunner},
    wire::{Acknowledge, BrokerError, BrokerMessage, SessionBody},
};

/// Answers a listener's request. A poll is held until there is a message, up to the configured time.
pub(crate) async fn answer(hub: &Arc<Hub>, request: &ApiRequest) -> ApiReply {
    if request.endpoint == Endpoint::Message {
        return poll(hub, request).await;
    }
    hub.change(|state, now| match request.endpoint {
        Endpoint::Token => token(state, now, request),
        Endpoint::Session => open_session(state, now, request),
        Endpoint::SessionDelete => close_session(state, now, request),
        Endpoint::Acknowledge => acknowledge(state, now, request),
        Endpoint::Acquire => run_api::acquire(state, now, request),
        Endpoint::Renew => run_api::renew(state, now, request),
        Endpoint::Complete => run_api::complete(state, now, request),
        Endpoint::Facts => run_api::facts(state, request),
        Endpoint::Mint
        | Endpoint::RegistrationToken
        | Endpoint::List
        | Endpoint::Get
        | Endpoint::Delete
        | Endpoint::Groups
        | Endpoint::Deprecation
        | Endpoint::Runs
        | Endpoint::RunJobs
        | Endpoint::Job
        | Endpoint::HookDeliveries
        | Endpoint::HookDelivery
        | Endpoint::HookAttempt
        | Endpoint::RateLimit
        | Endpoint::Meta
        | Endpoint::Message
        | Endpoint::Installation
        | Endpoint::AccessToken
        | Endpoint::LogUrl
        | Endpoint::LogMetadata
        | Endpoint::StepsUpdate
        | Endpoint::Blob
        | Endpoint::Unknown
        | Endpoint::ScaleSet(_) => Err(ApiReply::empty(StatusCode::NOT_FOUND)),
    })
    .unwrap_or_else(|refusal| refusal)
}

fn refuse(status: StatusCode, kind: &str, message: &str) -> ApiReply {
    ApiReply::json(
        status,
        &BrokerError {
            source: "actions-broker-listener".into(),
            error_kind: kind.into(),
            status_code: status.as_u16(),
            error_message: message.into(),
        },
    )
}

fn runner_not_found() -> ApiReply {
    refuse(StatusCode::NOT_FOUND, "RunnerNotFound", "Runner not found")
}

fn parse<T: DeserializeOwned>(request: &ApiRequest) -> Result<T, ApiReply> {
    request
        .json()
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()))
}

fn token(state: &mut GitHubState, now: u64, request: &ApiRequest) -> Result<ApiReply, ApiReply> {
    const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let oauth_error = |kind: &str| {
        Err(ApiReply::json(
            StatusCode::BAD_REQUEST,
            &json!({"error": kind, "error_description": "the client could not be authenticated"}),
        ))
    };
    let form: Vec<(String, String)> = form_urlencoded::parse(&request.body).into_owned().collect();
    let field = |name: &str| {
        form.iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, v)| v)
    };
    if field("grant_type") != "client_credentials" {
        return oauth_error("unsupported_grant_type");
    }
    if field("client_assertion_type") != ASSERTION_TYPE {
        return oauth_error("invalid_request");
    }
    let assertion = field("client_assertion");
    let audience = format!("{}/oauth2/token", state.public_url);
    let client = client_assertion::claimed_client(assertion).unwrap_or_default();
    let life_ms = state.settings.listener_token_ms;
    let Some(runner) = state.runners.values_mut().find(|r| r.client_id == client) else {
        return oauth_error("invalid_client");
    };
    let proven = client_assertion::holds(assertion, &audience, &runner.modulus, now / 1000);
    if !proven || runner.gone.is_some() {
        return oauth_error("invalid_client");
    }
    runner.access_tokens.retain(|token| now < token.until);
    let token = AccessToken {
        text: crate::random::jwt(&json!({
            "sub": client,
            "exp": (now + life_ms) / 1000,
            "jti": crate::random::uuid(),
        })),
        until: now + life_ms,
    };
    let answer = json!({
        "access_token": token.text,
        "token_type": "bearer",
        "expires_in": life_ms / 1000,
    });
    runner.access_tokens.push(token);
    Ok(ApiReply::json(StatusCode::OK, &answer))
}

/// Returns the runner whose listener calls, also if it is gone.
fn caller(state: &GitHubState, now: u64, request: &ApiRequest) -> Result<u64, ApiReply> {
    let unauthorized = || refuse(StatusCode::UNAUTHORIZED, "Unauthorized", "token not valid");
    let token = request.bearer().ok_or_else(unauthorized)?;
    state.runner_by_token(token, now).ok_or_else(unauthorized)
}

fn live_caller<'a>(
    state: &'a mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<&'a mut RegisteredRunner, ApiReply> {
    let id = caller(state, now, request)?;
    live_runner(state, id)
}

fn live_runner(state: &mut GitHubState, id: u64) -> Result<&mut RegisteredRunner, ApiReply> {
    state
        .runners
        .get_mut(&id)
        .filter(|runner| runner.gone.is_none())
        .ok_or_else(runner_not_found)
}

fn open_session(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let body: SessionBody = parse(request)?;
    let lapse = state.settings.session_lapse_ms;
    let runner = live_caller(state, now, request)?;
    if body.agent.id != runner.id || body.agent.name != runner.name {
        return Err(refuse(
            StatusCode::FORBIDDEN,
            "Forbidden",
            "the session's agent is not the caller",
        ));
    }
    let alive = |session: &ListenerSession| session.polls > 0 || now < session.last_poll + lapse;
    if runner.session.as_ref().is_some_and(alive) {
        return Err(refuse(
            StatusCode::CONFLICT,
            "RunnerSessionConflict",
            "A session for this runner already exists.",
        ));
    }
    runner.version = Some(body.agent.version.clone());
    runner.os = "Linux".into();
    runner.idle_since = now;
    let session = ListenerSession::new(crate::random::uuid(), body.owner_name.clone(), now);
    let answer = SessionBody {
        session_id: session.id.clone(),
        ..body
    };
    runner.session = Some(session);
    Ok(ApiReply::json(StatusCode::OK, &answer))
}

fn close_session(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let id = caller(state, now, request)?;
    if let Some(runner) = state.runners.get_mut(&id) {
        runner.session = None;
    }
    Ok(ApiReply::empty(StatusCode::OK))
}

/// One poll in flight. It also ends when the listener closes the connection.
struct Poll {
    hub: Arc<Hub>,
    runner: u64,
    session: String,
}

impl Poll {
    fn begin(hub: &Arc<Hub>, request: &ApiRequest) -> Result<Self, ApiReply> {
        hub.change(|state, now| {
            let runner = caller(state, now, request)?;
            let session = session_of(state, runner, request)?;
            session.polls += 1;
            session.has_polled = true;
            session.last_poll = now;
            Ok(Self {
                hub: Arc::clone(hub),
                runner,
                session: session.id.clone(),
            })
        })
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        self.hub.change(|state, now| {
            let session = state
                .runners
                .get_mut(&self.runner)
                .and_then(|r| r.session.as_mut());
            if let Some(session) = session.filter(|session| session.id == self.session) {
                session.polls -= 1;
                session.last_poll = now;
            }
        });
    }
}

/// Returns the runner's session, if the request names it and the listener is recent enough.
fn session_of<'a>(
    state: &'a mut GitHubState,
    runner: u64,
    request: &ApiRequest,
) -> Result<&'a mut ListenerSession, ApiReply> {
    let floor = state.settings.minimum_version.clone();
    let runner = live_runner(state, runner)?;
    let version = request.query_param("runnerVersion").unwrap_or("");
    if let Some(floor) = floor
        && numbers(version) < numbers(&floor)
    {
        let message =
            format!("Runner version v{version} is deprecated and cannot receive messages.");
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "RunnerVersionTooOld",
            &message,
        ));
    }
    runner
        .session
        .as_mut()
        .filter(|session| request.query_param("sessionId") == Some(&session.id))
        .ok_or_else(|| {
            refuse(
                StatusCode::NOT_FOUND,
                "RunnerSessionInvalid",
                "The session is not valid.",
            )
        })
}

fn numbers(version: &str) -> Vec<u64> {
    version
        .split('.')
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}

async fn poll(hub: &Arc<Hub>, request: &ApiRequest) -> ApiReply {
    let known = ["Online", "Busy", "Offline"];
    if !request
        .query_param("status")
        .is_some_and(|status| known.contains(&status))
    {
        return refuse(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "status is Online or Busy",
        );
    }
    let mut changes = hub.watch();
    let poll = match Poll::begin(hub, request) {
        Ok(poll) => poll,
        Err(refusal) => return refusal,
    };
    let hold = hub.read(|state, _| state.settings.poll_hold_ms);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_millis(hold);
    loop {
        changes.borrow_and_update();
        match next_message(&poll, request) {
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

/// Takes the next message. No other task waits for that, so none is woken. The token may expire meanwhile.
fn next_message(poll: &Poll, request: &ApiRequest) -> Result<Option<BrokerMessage>, ApiReply> {
    poll.hub.note(|state, _| {
        let session = session_of(state, poll.runner, request)?;
        Ok(session.messages.pop_front())
    })
}

fn acknowledge(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let body: Acknowledge = parse(request)?;
    let id = caller(state, now, request)?;
    state
        .offered_job(id, &body.runner_request_id)
        .ok_or_else(|| {
            refuse(
                StatusCode::NOT_FOUND,
                "AcknowledgeJobNotFound",
                "Job not found",
            )
        })?;
    Ok(ApiReply::empty(StatusCode::OK))
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_compare_by_number() {
        assert!(super::numbers("2.99.0") < super::numbers("2.329.0"));
        assert!(super::numbers("2.336.0") >= super::numbers("2.336.0"));
    }
}
