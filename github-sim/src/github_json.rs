//! Jobs, repositories and users as GitHub shows them, in answers and in webhooks.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    settings::RunnerGroup,
    state::{JobRecord, RegisteredRunner, SHA},
    time::rfc3339,
    view::JobState,
};

/// Distance from a run's id to the id of its job. A client that takes one for the other finds nothing.
pub(crate) const JOB_ID_DISTANCE: u64 = 1 << 40;
/// Id of every repository.
pub(crate) const REPOSITORY_ID: u64 = 1_296_269;

/// Returns the status of a job as GitHub shows it.
pub(crate) fn status(job: &JobRecord) -> &'static str {
    match job.state {
        JobState::Queued if job.waits_for_approval() => "waiting",
        // GitHub does not show that a job is offered to a runner.
        JobState::Queued | JobState::Assigned => "queued",
        JobState::InProgress => "in_progress",
        JobState::Completed => "completed",
    }
}

/// Returns a job.
pub(crate) fn job(
    public_url: &str,
    runners: &BTreeMap<u64, RegisteredRunner>,
    groups: &[RunnerGroup],
    job: &JobRecord,
) -> Value {
    let (owner, name) = job.origin.repository();
    let api = format!("{public_url}/repos/{owner}/{name}");
    let id = job.id + JOB_ID_DISTANCE;
    let taken = matches!(job.state, JobState::InProgress | JobState::Completed);
    let last = job.assignments.last();
    let runner = last.filter(|_| taken && job.started_at.is_some());
    let group = runner
        .and_then(|taken| runners.get(&taken.runner_id))
        .map(|runner| runner.group_id);
    let group_name = group
        .and_then(|id| groups.iter().find(|group| group.id == id))
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
        "html_url": format!("{}/{owner}/{name}/actions/runs/{}/job/{id}", public_url, job.id),
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
pub(crate) fn repository(public_url: &str, owner: &str, name: &str) -> Value {
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
    let url = format!("{public_url}/repos/{owner}/{name}");
    let mut repository = json!({
        "id": REPOSITORY_ID,
        "node_id": "R_standin",
        "name": name,
        "full_name": format!("{owner}/{name}"),
        "description": null,
        "private": true,
        "fork": false,
        "html_url": format!("{}/{owner}/{name}", public_url),
        "owner": user(public_url, owner),
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

/// Returns the short form of a user or organisation.
pub(crate) fn user(public_url: &str, owner: &str) -> Value {
    let url = format!("{public_url}/users/{owner}");
    let mut shown = json!({
        "id": 1,
        "node_id": "O_standin",
        "login": owner,
        "type": "Organization",
        "site_admin": false,
        "gravatar_id": "",
        "url": url,
        "html_url": format!("{}/{owner}", public_url),
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
