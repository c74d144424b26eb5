//! Workflow runs and their jobs. Each job is the only job of a run, whose id the job has as `GITHUB_RUN_ID`.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{errors, runners::paged};
use crate::{
    github_json::{self, JOB_ID_DISTANCE},
    http::{ApiReply, ApiRequest},
    scope::Scope,
    settings::PagingFault,
    state::{GitHubState, JobRecord, SHA, rfc3339},
};

/// Maximum number of runs that a filtered list gives, over all pages.
const FILTERED_RUNS: usize = 1000;
const WORKFLOW_ID: u64 = 161_335;

/// `GET …/actions/runs`
pub(super) fn list(
    state: &GitHubState,
    scope: &Scope,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let served = ["status", "per_page", "page", "exclude_pull_requests"];
    if let Some((name, _)) = request
        .query
        .iter()
        .find(|(name, _)| !served.contains(&name.as_str()))
    {
        // Without the filter, a client would get runs that it did not ask for.
        return Err(errors::invalid(&format!("\"{name}\" is not supported.")));
    }
    let filter = request.query_param("status");
    let newest_first = state.jobs.values().rev();
    let mut runs: Vec<Value> = newest_first
        .filter(|job| job.origin == *scope && filter.is_none_or(|filter| has_status(job, filter)))
        .map(|job| show_run(state, job))
        .collect();
    if filter.is_some() {
        runs.truncate(FILTERED_RUNS);
    }
    Ok(paged(
        state,
        request,
        "workflow_runs",
        runs,
        PagingFault::None,
    ))
}

/// `GET …/actions/runs/{run_id}/jobs`
pub(super) fn jobs(
    state: &GitHubState,
    scope: &Scope,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let job = find(state, scope, request.path_param("run_id"), 0)?;
    let shown = vec![show_job(state, job)];
    Ok(paged(state, request, "jobs", shown, PagingFault::None))
}

/// `GET …/actions/jobs/{job_id}`
pub(super) fn job(
    state: &GitHubState,
    scope: &Scope,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let job = find(state, scope, request.path_param("job_id"), JOB_ID_DISTANCE)?;
    Ok(ApiReply::json(StatusCode::OK, &show_job(state, job)))
}

fn find<'a>(
    state: &'a GitHubState,
    scope: &Scope,
    id: Option<&str>,
    distance: u64,
) -> Result<&'a JobRecord, ApiReply> {
    id.and_then(|text| text.parse::<u64>().ok())
        .and_then(|id| state.jobs.get(&id.checked_sub(distance)?))
        .filter(|job| job.origin == *scope)
        .ok_or_else(errors::not_found)
}

/// Tells whether a run has this status or, as the parameter `status` takes both, this conclusion.
fn has_status(job: &JobRecord, filter: &str) -> bool {
    let conclusion = job.conclusion.map(|conclusion| conclusion.to_string());
    github_json::status(job) == filter || conclusion.as_deref() == Some(filter)
}

fn show_run(state: &GitHubState, job: &JobRecord) -> Value {
    let (owner, name) = job.origin.repository();
    let repository = github_json::repository(&state.public_url, owner, name);
    let web = format!("{}/{owner}/{name}", state.public_url);
    let api = format!("{}/repos/{owner}/{name}", state.public_url);
    let url = format!("{api}/actions/runs/{}", job.id);
    let updated = job
        .completed_at
        .or(job.started_at)
        .unwrap_or(job.created_at);
    let mut run = json!({
        "id": job.id,
        "name": "ci",
        "node_id": format!("WFR_{}", job.id),
        "head_branch": "main",
        "run_number": 1,
        "run_attempt": 1,
        "display_title": job.spec.name,
        "event": "push",
        "status": github_json::status(job),
        "conclusion": job.conclusion,
        "head_sha": SHA,
        "path": ".github/workflows/ci.yml",
        "workflow_id": WORKFLOW_ID,
        "workflow_url": format!("{api}/actions/workflows/{WORKFLOW_ID}"),
        "url": url,
        "html_url": format!("{web}/actions/runs/{}", job.id),
        "created_at": rfc3339(job.created_at),
        "run_started_at": rfc3339(job.created_at),
        "updated_at": rfc3339(updated),
        "head_commit": null,
        "pull_requests": [],
        "check_suite_url": format!("{api}/check-suites/{}", job.id),
    });
    for (key, end) in [
        ("jobs_url", "jobs"),
        ("logs_url", "logs"),
        ("cancel_url", "cancel"),
        ("rerun_url", "rerun"),
        ("artifacts_url", "artifacts"),
    ] {
        run[key] = format!("{url}/{end}").into();
    }
    run["head_repository"] = repository.clone();
    run["repository"] = repository;
    run
}

fn show_job(state: &GitHubState, job: &JobRecord) -> Value {
    github_json::job(
        &state.public_url,
        &state.runners,
        &state.settings.groups,
        job,
    )
}
