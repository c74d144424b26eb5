//! Endpoints of the run service: one job from acquire to complete.

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    http::{ApiReply, ApiRequest},
    job_message::{self, JobMessageParts},
    state::{GitHubState, JobRecord},
    time::rfc3339,
    view::{Conclusion, JobState, Outcome},
    wire::{Acquire, BrokerError, Complete, Facts, JobResult, LOG_TAIL_BYTES, Renew},
};

/// Returns a refusal of the run service. A listener skips a job only if the refusal names this source.
fn refuse(status: StatusCode, message: &str) -> ApiReply {
    ApiReply::json(
        status,
        &BrokerError {
            source: "actions-run-service".into(),
            error_kind: String::new(),
            status_code: status.as_u16(),
            error_message: message.into(),
        },
    )
}

fn parse<T: DeserializeOwned>(request: &ApiRequest) -> Result<T, ApiReply> {
    request
        .json()
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, &error.to_string()))
}

/// `POST /run/{request}/acquirejob`
pub(crate) fn acquire(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let body: Acquire = parse(request)?;
    let token = request.bearer().unwrap_or_default();
    let runner = state
        .runner_by_token(token, now)
        .ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "token not valid"))?;
    let offer = request.path_param("request").unwrap_or("");
    if body.job_message_id != offer {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "jobMessageId does not match",
        ));
    }
    let (url, lock_ms) = (state.public_url.clone(), state.settings.lock_ms);
    let Some(job) = state.offered_job(runner, offer) else {
        lose_registration(state, runner);
        return Err(refuse(StatusCode::NOT_FOUND, "Job not found"));
    };
    if job.state == JobState::InProgress {
        return Err(refuse(StatusCode::CONFLICT, "Job already acquired"));
    }
    if job.spec.lose_races > 0 {
        job.spec.lose_races -= 1;
        let id = job.id;
        state.withdraw(id, Outcome::LostRace, now);
        lose_registration(state, runner);
        return Err(refuse(StatusCode::CONFLICT, "Job already acquired"));
    }
    job.state = JobState::InProgress;
    job.started_at = Some(now);
    if let Some(last) = job.assignments.last_mut() {
        last.outcome = Outcome::Acquired;
    }
    if let Some(offer) = &mut job.offer {
        offer.locked_until = Some(now + lock_ms);
    }
    let message = message_of(job, &url, offer, now + lock_ms);
    Ok(ApiReply::json(StatusCode::OK, &message).header("x-plan-id", &job.plan))
}

/// Ends the registration of a runner that lost a race for a job. Its listener lives on.
fn lose_registration(state: &mut GitHubState, runner: u64) {
    if let Some(runner) = state.runners.get_mut(&runner)
        && runner.ephemeral
        && runner.gone.is_none()
    {
        runner.ghost = true;
    }
}

fn message_of(job: &JobRecord, server_url: &str, offer: &str, locked_until: u64) -> Value {
    job_message::write(&JobMessageParts {
        spec: &job.spec,
        job_id: &job.uuid,
        plan_id: &job.plan,
        token: &job.token,
        server_url,
        report_url: &format!("{server_url}/run/{offer}/"),
        locked_until: &rfc3339(locked_until),
        github: &job.github_context(server_url),
    })
}

/// Returns the running job of the job token and of the path.
fn running_job<'a>(
    state: &'a mut GitHubState,
    request: &ApiRequest,
) -> Result<&'a mut JobRecord, ApiReply> {
    let token = request.bearer().unwrap_or("");
    let job = state
        .jobs
        .values_mut()
        .find(|job| job.token == token)
        .ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "job token not valid"))?;
    let running = job.state == JobState::InProgress
        && job
            .offer
            .as_ref()
            .is_some_and(|offer| request.path_param("request") == Some(&offer.request_id));
    if running {
        Ok(job)
    } else {
        Err(refuse(StatusCode::NOT_FOUND, "Job not found"))
    }
}

fn check_ids(job: &JobRecord, plan: &str, id: &str) -> Result<(), ApiReply> {
    if job.plan == plan && job.uuid == id {
        Ok(())
    } else {
        Err(refuse(
            StatusCode::BAD_REQUEST,
            "planId or jobId does not match",
        ))
    }
}

/// `POST /run/{request}/renewjob`
pub(crate) fn renew(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let body: Renew = parse(request)?;
    let until = now + state.settings.lock_ms;
    let job = running_job(state, request)?;
    check_ids(job, &body.plan_id, &body.job_id)?;
    if let Some(offer) = &mut job.offer {
        offer.locked_until = Some(until);
    }
    Ok(ApiReply::json(
        StatusCode::OK,
        &json!({"lockedUntil": rfc3339(until)}),
    ))
}

/// `POST /run/{request}/completejob`
pub(crate) fn complete(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let body: Complete = parse(request)?;
    let job = running_job(state, request)?;
    check_ids(job, &body.plan_id, &body.job_id)?;
    let id = job.id;
    let conclusion = match body.conclusion {
        JobResult::Succeeded => Conclusion::Success,
        JobResult::Failed => Conclusion::Failure,
        JobResult::Canceled => Conclusion::Cancelled,
    };
    state.end_job(id, conclusion, None, now);
    Ok(ApiReply::empty(StatusCode::OK))
}

/// `POST /run/{request}/facts`
pub(crate) fn facts(state: &mut GitHubState, request: &ApiRequest) -> Result<ApiReply, ApiReply> {
    let mut body: Facts = parse(request)?;
    let job = running_job(state, request)?;
    keep_tail(&mut body.log_tail);
    job.facts = body;
    Ok(ApiReply::empty(StatusCode::OK))
}

/// Removes the start of a text that is longer than a job's log tail.
pub(crate) fn keep_tail(text: &mut String) {
    if let Some(start) = text.len().checked_sub(LOG_TAIL_BYTES) {
        let start = (start..=text.len())
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(start);
        text.drain(..start);
    }
}
