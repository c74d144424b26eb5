//! What listeners call: token, session, messages, and the life of one job.

use std::sync::Arc;

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    blob,
    http::{Call, Reply},
    model::{Job, Runner, Session, github_context},
    route::Endpoint,
    state::{Hub, State},
    view::{Conclusion, GoneCause, JobStatus, Outcome},
    wire::{
        Acknowledge, Acquire, Authorization, BrokerError, Complete, ContextData,
        Endpoint as ServiceEndpoint, Facts, JobMessage, JobResult, LOG_TAIL_BYTES, Message, Plan,
        Renew, Resources, SessionBody,
    },
};

/// Answers one call of a listener. A poll may take as long as polls are held.
pub(crate) async fn answer(
    hub: &Arc<Hub>,
    call: &Call,
    endpoint: Endpoint,
    request: &str,
) -> Reply {
    if endpoint == Endpoint::Message {
        return poll(hub, call).await;
    }
    hub.change(|state, now| match endpoint {
        Endpoint::Token => token(state, now, call),
        Endpoint::Session => open_session(state, now, call),
        Endpoint::SessionDelete => close_session(state, call),
        Endpoint::Acknowledge => acknowledge(state, call),
        Endpoint::Acquire => acquire(state, now, call, request),
        Endpoint::Renew => renew(state, now, call, request),
        Endpoint::Complete => complete(state, now, call, request),
        Endpoint::Facts => facts(state, call, request),
        Endpoint::Mint
        | Endpoint::List
        | Endpoint::Get
        | Endpoint::Delete
        | Endpoint::Groups
        | Endpoint::RateLimit
        | Endpoint::Meta
        | Endpoint::Message
        | Endpoint::Installation
        | Endpoint::AccessToken
        | Endpoint::Unknown => Err(Reply::empty(StatusCode::NOT_FOUND)),
    })
    .unwrap_or_else(|refusal| refusal)
}

fn refuse(status: StatusCode, kind: &str, message: &str) -> Reply {
    Reply::json(
        status,
        &BrokerError {
            source: "actions-broker-listener".into(),
            error_kind: kind.into(),
            status_code: status.as_u16(),
            error_message: message.into(),
        },
    )
}

fn runner_not_found() -> Reply {
    refuse(StatusCode::NOT_FOUND, "RunnerNotFound", "Runner not found")
}

fn parse<T: DeserializeOwned>(call: &Call) -> Result<T, Reply> {
    call.json()
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()))
}

fn token(state: &mut State, now: u64, call: &Call) -> Result<Reply, Reply> {
    const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let oauth_error = |kind: &str| {
        Err(Reply::json(
            StatusCode::BAD_REQUEST,
            &json!({"error": kind, "error_description": "the client could not be authenticated"}),
        ))
    };
    let form: Vec<(String, String)> = form_urlencoded::parse(&call.body).into_owned().collect();
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
    let client = blob::claimed_client(assertion).unwrap_or_default();
    let Some(runner) = state.runners.values_mut().find(|r| r.client_id == client) else {
        return oauth_error("invalid_client");
    };
    let proven = blob::assertion_holds(assertion, &audience, &runner.secret, now / 1000);
    if !proven || runner.gone.is_some() {
        return oauth_error("invalid_client");
    }
    let token = runner
        .access_token
        .get_or_insert_with(|| crate::random::secret("listener"))
        .clone();
    Ok(Reply::json(
        StatusCode::OK,
        &json!({"access_token": token, "token_type": "bearer", "expires_in": 3600}),
    ))
}

/// The runner whose listener calls; gone ones too.
fn caller(state: &State, call: &Call) -> Result<u64, Reply> {
    let unauthorized = || refuse(StatusCode::UNAUTHORIZED, "Unauthorized", "token not valid");
    let token = call.bearer().ok_or_else(unauthorized)?;
    state
        .runners
        .values()
        .find(|runner| runner.access_token.as_deref() == Some(token))
        .map(|runner| runner.id)
        .ok_or_else(unauthorized)
}

fn live_caller<'a>(state: &'a mut State, call: &Call) -> Result<&'a mut Runner, Reply> {
    let id = caller(state, call)?;
    state
        .runners
        .get_mut(&id)
        .filter(|runner| runner.gone.is_none())
        .ok_or_else(runner_not_found)
}

fn open_session(state: &mut State, now: u64, call: &Call) -> Result<Reply, Reply> {
    let body: SessionBody = parse(call)?;
    let lapse = state.settings.session_lapse_ms;
    let runner = live_caller(state, call)?;
    if body.agent.id != runner.id || body.agent.name != runner.name {
        return Err(refuse(
            StatusCode::FORBIDDEN,
            "Forbidden",
            "the session's agent is not the caller",
        ));
    }
    let alive = |session: &Session| session.polls > 0 || now < session.last_poll + lapse;
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
    let session = Session::new(crate::random::uuid(), body.owner_name.clone(), now);
    let answer = SessionBody {
        session_id: session.id.clone(),
        ..body
    };
    runner.session = Some(session);
    Ok(Reply::json(StatusCode::OK, &answer))
}

fn close_session(state: &mut State, call: &Call) -> Result<Reply, Reply> {
    let id = caller(state, call)?;
    if let Some(runner) = state.runners.get_mut(&id) {
        runner.session = None;
    }
    Ok(Reply::empty(StatusCode::OK))
}

/// One poll in flight. Also when the caller hangs up, it ends.
struct Poll {
    hub: Arc<Hub>,
    runner: u64,
    session: String,
}

impl Poll {
    fn begin(hub: &Arc<Hub>, call: &Call) -> Result<Self, Reply> {
        hub.change(|state, now| {
            let (runner, session) = session_of(state, call)?;
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

/// The caller's session, if it is the one the call names and its listener is recent enough.
fn session_of<'a>(state: &'a mut State, call: &Call) -> Result<(u64, &'a mut Session), Reply> {
    let floor = state.settings.minimum_version.clone();
    let runner = live_caller(state, call)?;
    let version = call.param("runnerVersion").unwrap_or("");
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
    let id = runner.id;
    runner
        .session
        .as_mut()
        .filter(|session| call.param("sessionId") == Some(&session.id))
        .map(|session| (id, session))
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

async fn poll(hub: &Arc<Hub>, call: &Call) -> Reply {
    let known = ["Online", "Busy", "Offline"];
    if !call
        .param("status")
        .is_some_and(|status| known.contains(&status))
    {
        return refuse(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "status is Online or Busy",
        );
    }
    let mut changes = hub.watch();
    let poll = match Poll::begin(hub, call) {
        Ok(poll) => poll,
        Err(refusal) => return refusal,
    };
    let hold = hub.look(|state, _| state.settings.poll_hold_ms);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_millis(hold);
    loop {
        changes.borrow_and_update();
        match next_message(&poll.hub, call) {
            Ok(None) => {}
            Ok(Some(message)) => return Reply::json(StatusCode::OK, &message),
            Err(refusal) => return refusal,
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(deadline) => return Reply::empty(StatusCode::ACCEPTED),
        }
    }
}

/// Takes the next message, without waking anyone: taking one is no news to others.
fn next_message(hub: &Hub, call: &Call) -> Result<Option<Message>, Reply> {
    hub.note(|state, _| Ok(session_of(state, call)?.1.messages.pop_front()))
}

fn acknowledge(state: &mut State, call: &Call) -> Result<Reply, Reply> {
    let body: Acknowledge = parse(call)?;
    let id = caller(state, call)?;
    offered_job(state, id, &body.runner_request_id).ok_or_else(|| {
        refuse(
            StatusCode::NOT_FOUND,
            "AcknowledgeJobNotFound",
            "Job not found",
        )
    })?;
    Ok(Reply::empty(StatusCode::OK))
}

fn offered_job<'a>(state: &'a mut State, runner: u64, request: &str) -> Option<&'a mut Job> {
    state.jobs.values_mut().find(|job| {
        job.offer
            .as_ref()
            .is_some_and(|offer| offer.runner == runner && offer.request_id == request)
    })
}

fn acquire(state: &mut State, now: u64, call: &Call, request: &str) -> Result<Reply, Reply> {
    let body: Acquire = parse(call)?;
    let runner = caller(state, call)?;
    if body.job_message_id != request {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "jobMessageId does not match",
        ));
    }
    let (url, lock_ms) = (state.public_url.clone(), state.settings.lock_ms);
    let Some(job) = offered_job(state, runner, request) else {
        lose_registration(state, runner);
        return Err(refuse(
            StatusCode::NOT_FOUND,
            "JobNotFound",
            "Job not found",
        ));
    };
    if job.status == JobStatus::InProgress {
        return Err(refuse(
            StatusCode::CONFLICT,
            "JobAlreadyAcquired",
            "Job already acquired",
        ));
    }
    if job.spec.lose_races > 0 {
        job.spec.lose_races -= 1;
        let id = job.id;
        state.withdraw(id, Outcome::LostRace, now);
        lose_registration(state, runner);
        return Err(refuse(
            StatusCode::CONFLICT,
            "JobAlreadyAcquired",
            "Job already acquired",
        ));
    }
    job.status = JobStatus::InProgress;
    job.started_at = Some(now);
    if let Some(last) = job.assignments.last_mut() {
        last.outcome = Outcome::Acquired;
    }
    if let Some(offer) = &mut job.offer {
        offer.locked_until = Some(now + lock_ms);
    }
    Ok(
        Reply::json(StatusCode::OK, &job_message(job, &url, request))
            .header("x-plan-id", &job.plan),
    )
}

/// What happens to the loser of a race: its listener lives on, its registration does not.
fn lose_registration(state: &mut State, runner: u64) {
    if let Some(runner) = state.runners.get_mut(&runner)
        && runner.ephemeral
        && runner.gone.is_none()
    {
        runner.ghost = true;
    }
}

fn job_message(job: &Job, url: &str, request: &str) -> JobMessage {
    let token = ("AccessToken".to_owned(), job.token.clone());
    JobMessage {
        message_type: "PipelineAgentJobRequest".into(),
        plan: Plan {
            plan_id: job.plan.clone(),
        },
        job_id: job.uuid.clone(),
        job_display_name: job.spec.name.clone(),
        resources: Resources {
            endpoints: vec![ServiceEndpoint {
                name: "SystemVssConnection".into(),
                url: format!("{url}/run/{request}/"),
                authorization: Authorization {
                    scheme: "OAuth".into(),
                    parameters: [token].into(),
                },
            }],
        },
        context_data: ContextData {
            github: github_context(job, url),
        },
        environment_variables: job.spec.env.clone(),
        steps: job.spec.steps.clone(),
        listener: job.spec.listener.clone(),
    }
}

/// The running job that the caller's job token and the path belong to.
fn running_job<'a>(state: &'a mut State, call: &Call, request: &str) -> Result<&'a mut Job, Reply> {
    let token = call.bearer().unwrap_or("");
    let job = state
        .jobs
        .values_mut()
        .find(|job| job.token == token)
        .ok_or_else(|| {
            refuse(
                StatusCode::UNAUTHORIZED,
                "Unauthorized",
                "job token not valid",
            )
        })?;
    let running = job.status == JobStatus::InProgress
        && job
            .offer
            .as_ref()
            .is_some_and(|offer| offer.request_id == request);
    if running {
        Ok(job)
    } else {
        Err(refuse(
            StatusCode::NOT_FOUND,
            "JobNotFound",
            "Job not found",
        ))
    }
}

fn check_ids(job: &Job, plan: &str, id: &str) -> Result<(), Reply> {
    if job.plan == plan && job.uuid == id {
        Ok(())
    } else {
        Err(refuse(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            "planId or jobId does not match",
        ))
    }
}

fn renew(state: &mut State, now: u64, call: &Call, request: &str) -> Result<Reply, Reply> {
    let body: Renew = parse(call)?;
    let until = now + state.settings.lock_ms;
    let job = running_job(state, call, request)?;
    check_ids(job, &body.plan_id, &body.job_id)?;
    if let Some(offer) = &mut job.offer {
        offer.locked_until = Some(until);
    }
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(until);
    let text = humantime::format_rfc3339_millis(time).to_string();
    Ok(Reply::json(StatusCode::OK, &json!({"lockedUntil": text})))
}

fn complete(state: &mut State, now: u64, call: &Call, request: &str) -> Result<Reply, Reply> {
    let body: Complete = parse(call)?;
    let job = running_job(state, call, request)?;
    check_ids(job, &body.plan_id, &body.job_id)?;
    let id = job.id;
    let conclusion = match body.conclusion {
        JobResult::Succeeded => Conclusion::Success,
        JobResult::Failed => Conclusion::Failure,
        JobResult::Canceled => Conclusion::Cancelled,
    };
    state.end_job(id, conclusion, None, now);
    Ok(Reply::empty(StatusCode::OK))
}

fn facts(state: &mut State, call: &Call, request: &str) -> Result<Reply, Reply> {
    let mut body: Facts = parse(call)?;
    let job = running_job(state, call, request)?;
    if body.log_tail.len() > LOG_TAIL_BYTES {
        let start = body.log_tail.len() - LOG_TAIL_BYTES;
        let start = (start..=body.log_tail.len())
            .find(|&at| body.log_tail.is_char_boundary(at))
            .unwrap_or(start);
        body.log_tail.drain(..start);
    }
    job.facts = body;
    Ok(Reply::empty(StatusCode::OK))
}

/// Used by the control API: the runner is deleted by a person.
pub(crate) fn delete_in_ui(state: &mut State, id: u64, now: u64) -> bool {
    let known = state
        .runners
        .get(&id)
        .is_some_and(|runner| runner.gone.is_none());
    state.remove_runner(id, GoneCause::DeletedInUi, now);
    known
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_compare_by_number() {
        assert!(super::numbers("2.99.0") < super::numbers("2.329.0"));
        assert!(super::numbers("2.336.0") >= super::numbers("2.336.0"));
    }
}
