//! Workflow runs and their jobs. Each job is the only job of a run, whose id the job has as `GITHUB_RUN_ID`.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{errors, runners::paged};
use crate::{
    http::{ApiReply, ApiRequest},
    scope::Scope,
    settings::PagingFault,
    state::{GitHubState, JobRecord, SHA, rfc3339},
    view::JobState,
};

/// Distance from a run's id to the id of its job. A client that takes one for the other finds nothing.
const JOB_ID_DISTANCE: u64 = 1 << 40;
/// Maximum number of runs that a filtered list gives, over all pages.
const FILTERED_RUNS: usize = 1000;
const WORKFLOW_ID: u64 = 161_335;
const REPOSITORY_ID: u64 = 1_296_269;

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
    status(job) == filter || conclusion.as_deref() == Some(filter)
}

fn status(job: &JobRecord) -> &'static str {
    match job.state {
        // GitHub does not show that a job is offered to a runner.
        JobState::Queued | JobState::Assigned => "queued",
        JobState::InProgress => "in_progress",
        JobState::Completed => "completed",
    }
}

fn show_run(state: &GitHubState, job: &JobRecord) -> Value {
    let (owner, name) = job.origin.repository();
    let repository = show_repository(state, owner, name);
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
        "status": status(job),
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
    let (owner, name) = job.origin.repository();
    let api = format!("{}/repos/{owner}/{name}", state.public_url);
    let id = job.id + JOB_ID_DISTANCE;
    let taken = matches!(job.state, JobState::InProgress | JobState::Completed);
    let last = job.assignments.last();
    let runner = last.filter(|_| taken && job.started_at.is_some());
    let group = runner
        .and_then(|taken| state.runners.get(&taken.runner_id))
        .map(|runner| runner.group_id);
    let group_name = group
        .and_then(|id| state.settings.groups.iter().find(|group| group.id == id))
        .map(|group| group.name.as_str());
    json!({
        "id": id,
        "node_id": format!("CR_{id}"),
        "run_id": job.id,
        "run_attempt": 1,
        "run_url": format!("{api}/actions/runs/{}", job.id),
        "head_sha": SHA,
        "head_branch": "main",
        "workflow_name": "ci",
        "name": job.spec.name,
        "url": format!("{api}/actions/jobs/{id}"),
        "html_url": format!("{}/{owner}/{name}/actions/runs/{}/job/{id}", state.public_url, job.id),
        "check_run_url": format!("{api}/check-runs/{id}"),
        "status": status(job),
        "conclusion": job.conclusion,
        "created_at": rfc3339(job.created_at),
        "started_at": rfc3339(job.started_at.unwrap_or(job.created_at)),
        "completed_at": job.completed_at.map(rfc3339),
        "labels": job.spec.labels,
        "runner_id": runner.map(|runner| runner.runner_id),
        "runner_name": runner.map(|runner| runner.runner_name.as_str()),
        "runner_group_id": group,
        "runner_group_name": group_name,
        "steps": [],
    })
}

/// Returns the short form of a repository with every address that it has at GitHub.
fn show_repository(state: &GitHubState, owner: &str, name: &str) -> Value {
    const ADDRESSES: [&str; 37] = [
        "archive",
        "assignees",
        "blobs",
        "branches",
        "collaborators",
        "comments",
        "commits",
        "compare",
        "contents",
        "contributors",
        "deployments",
        "downloads",
        "events",
        "forks",
        "git_commits",
        "git_refs",
        "git_tags",
        "hooks",
        "issue_comment",
        "issue_events",
        "issues",
        "keys",
        "labels",
        "languages",
        "merges",
        "milestones",
        "notifications",
        "pulls",
        "releases",
        "stargazers",
        "statuses",
        "subscribers",
        "subscription",
        "tags",
        "teams",
        "trees",
        "",
    ];
    let url = format!("{}/repos/{owner}/{name}", state.public_url);
    let mut repository = json!({
        "id": REPOSITORY_ID,
        "node_id": "R_standin",
        "name": name,
        "full_name": format!("{owner}/{name}"),
        "description": null,
        "private": true,
        "fork": false,
        "html_url": format!("{}/{owner}/{name}", state.public_url),
        "owner": show_owner(state, owner),
    });
    for address in ADDRESSES {
        let key = if address.is_empty() {
            "url".into()
        } else {
            format!("{address}_url")
        };
        let text = format!("{url}/{address}");
        repository[key] = text.trim_end_matches('/').into();
    }
    repository
}

fn show_owner(state: &GitHubState, owner: &str) -> Value {
    let url = format!("{}/users/{owner}", state.public_url);
    let mut shown = json!({
        "id": 1,
        "node_id": "O_standin",
        "login": owner,
        "type": "Organization",
        "site_admin": false,
        "gravatar_id": "",
        "url": url,
        "html_url": format!("{}/{owner}", state.public_url),
    });
    for address in [
        "avatar",
        "events",
        "followers",
        "following",
        "gists",
        "organizations",
        "received_events",
        "repos",
        "starred",
        "subscriptions",
    ] {
        shown[format!("{address}_url")] = format!("{url}/{address}").into();
    }
    shown
}
