//! Runners and their groups.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{errors, paging::PageRequest};
use crate::{
    http::{ApiReply, ApiRequest},
    registration::{self, RunnerRequest},
    scale_sets::{ServiceToken, ServiceTokenKind},
    scope::Scope,
    settings::{PagingFault, RunnerGroup},
    state::{GitHubState, RegisteredRunner},
    time::rfc3339,
    view::{GoneCause, JobState},
};

const LONGEST_LABEL: usize = 256;
const DEFAULT_GROUP: u64 = 1;

/// Body of a mint, after its JSON types have been checked.
#[derive(Deserialize)]
struct MintBody {
    name: String,
    runner_group_id: u64,
    labels: Vec<String>,
    #[serde(default = "default_work_folder")]
    work_folder: String,
}

fn default_work_folder() -> String {
    "_work".into()
}

pub(super) fn mint(
    state: &mut GitHubState,
    now: u64,
    scope: &Scope,
    body: &Value,
) -> Result<ApiReply, ApiReply> {
    let ask: MintBody = serde_json::from_value(body.clone())
        .map_err(|error| errors::invalid(&error.to_string()))?;
    if let Some(problem) = registration::problem_of_name(&ask.name) {
        return Err(errors::unprocessable("Validation Failed", &[problem]));
    }
    check_labels(&ask.labels)?;
    if ask.work_folder.trim().is_empty() {
        return Err(errors::unprocessable(
            "Validation Failed",
            &["work_folder must not be empty"],
        ));
    }
    let group = find_group(state, scope, ask.runner_group_id)?;
    if registration::is_taken(state, scope, &ask.name) {
        return Err(errors::plain(
            StatusCode::CONFLICT,
            &format!(
                "Already exists - A runner with the name {:?} already exists.",
                ask.name
            ),
        ));
    }
    let capacity = state.settings.group_capacity;
    let in_group = |runner: &&RegisteredRunner| {
        runner.is_registered() && runner.scope == *scope && runner.group_id == group.id
    };
    if state.runners.values().filter(in_group).count() >= capacity {
        return Err(errors::unprocessable(
            &format!("Runner group has reached the max limit of {capacity} runners."),
            &[],
        ));
    }
    let request = RunnerRequest {
        scope,
        group: (group.id, &group.name),
        name: &ask.name,
        labels: &ask.labels,
        work_folder: &ask.work_folder,
        scale_set: None,
        disable_update: true,
    };
    let (id, config) = registration::register(state, now, &request);
    let shown = find(state, scope, id).map(|runner| show(state, now, runner))?;
    Ok(ApiReply::json(
        StatusCode::CREATED,
        &json!({"runner": shown, "encoded_jit_config": config}),
    ))
}

/// `POST …/actions/runners/registration-token`
pub(super) fn registration_token(state: &mut GitHubState, now: u64, scope: &Scope) -> ApiReply {
    let token = format!("A{}", crate::random::text(21).to_uppercase());
    let expires = now + state.settings.scale_sets.registration_token_ms;
    let issued = ServiceToken {
        kind: ServiceTokenKind::Registration,
        token: token.clone(),
        scope: scope.clone(),
        expires,
    };
    state.scale_sets.service.issue(issued, now);
    ApiReply::json(
        StatusCode::CREATED,
        &json!({"token": token, "expires_at": rfc3339(expires)}),
    )
}

pub(super) fn list(state: &GitHubState, now: u64, scope: &Scope, request: &ApiRequest) -> ApiReply {
    let shown: Vec<Value> = state
        .runners
        .values()
        .filter(|r| r.is_registered() && r.scope == *scope && now >= r.listed_from)
        .filter(|r| {
            request
                .query_param("name")
                .is_none_or(|name| r.name == name)
        })
        .map(|runner| show(state, now, runner))
        .collect();
    paged(
        state,
        request,
        "runners",
        shown,
        state.settings.paging_fault,
    )
}

pub(super) fn get(
    state: &GitHubState,
    now: u64,
    scope: &Scope,
    id: u64,
) -> Result<ApiReply, ApiReply> {
    let runner = find(state, scope, id)?;
    Ok(ApiReply::json(StatusCode::OK, &show(state, now, runner)))
}

pub(super) fn delete(
    state: &mut GitHubState,
    now: u64,
    scope: &Scope,
    id: u64,
) -> Result<ApiReply, ApiReply> {
    let runner = find(state, scope, id)?;
    let assigned = runner
        .job
        .and_then(|id| state.jobs.get(&id))
        .is_some_and(|job| job.state == JobState::Assigned);
    if state.is_busy(runner) || (assigned && !state.settings.assigned_runner_deletable) {
        let message = format!(
            "Runner \"{}\" is still running a job. Please wait for it to finish before deleting it.",
            runner.name
        );
        return Err(errors::unprocessable(&message, &[]));
    }
    state.remove_runner(id, GoneCause::DeletedByRest, now);
    Ok(ApiReply::empty(StatusCode::NO_CONTENT))
}

pub(super) fn groups(state: &GitHubState, scope: &Scope, request: &ApiRequest) -> ApiReply {
    let visible = |group: &&RunnerGroup| {
        request
            .query_param("visible_to_repository")
            .is_none_or(|repository| {
                group.visibility == "all"
                    || group
                        .repositories
                        .iter()
                        .any(|name| name.eq_ignore_ascii_case(repository))
            })
    };
    let base = format!("{}{}", state.public_url, scope.rest_prefix());
    let shown = state
        .settings
        .groups
        .iter()
        .filter(visible)
        .map(|group| {
            let url = format!("{base}/actions/runner-groups/{}", group.id);
            json!({
                "id": group.id,
                "name": group.name,
                "visibility": group.visibility,
                "default": group.id == DEFAULT_GROUP,
                "selected_repositories_url": format!("{url}/repositories"),
                "runners_url": format!("{url}/runners"),
                "hosted_runners_url": format!("{url}/hosted-runners"),
                "inherited": false,
                "allows_public_repositories": group.allows_public_repositories,
                "workflow_restrictions_read_only": false,
                "restricted_to_workflows": group.selected_workflows.is_some(),
                "selected_workflows": group.selected_workflows.as_deref().unwrap_or_default(),
            })
        })
        .collect();
    paged(state, request, "runner_groups", shown, PagingFault::None)
}

pub(super) fn paged(
    state: &GitHubState,
    request: &ApiRequest,
    key: &str,
    items: Vec<Value>,
    fault: PagingFault,
) -> ApiReply {
    let page = PageRequest::of(request);
    let total = items.len();
    let mut body = json!({"total_count": total});
    body[key] = page.cut(items, fault).into();
    let reply = ApiReply::json(StatusCode::OK, &body);
    match page.link(request, &state.public_url, total) {
        Some(link) => reply.header("link", &link),
        None => reply,
    }
}

fn find<'a>(
    state: &'a GitHubState,
    scope: &Scope,
    id: u64,
) -> Result<&'a RegisteredRunner, ApiReply> {
    state
        .runners
        .get(&id)
        .filter(|runner| runner.is_registered() && runner.scope == *scope)
        .ok_or_else(errors::not_found)
}

fn find_group(state: &GitHubState, scope: &Scope, id: u64) -> Result<RunnerGroup, ApiReply> {
    // A repository has only the default group.
    let exists = |group: &&RunnerGroup| {
        group.id == id && (matches!(scope, Scope::Organization(_)) || id == DEFAULT_GROUP)
    };
    let group = state.settings.groups.iter().find(exists);
    match group {
        None => Err(errors::not_found()),
        Some(group) if group.hosted => Err(errors::plain(
            StatusCode::FORBIDDEN,
            "Self-hosted runners cannot be added to a GitHub-hosted runner group.",
        )),
        Some(group) => Ok(group.clone()),
    }
}

fn check_labels(labels: &[String]) -> Result<(), ApiReply> {
    let problem = if labels.iter().any(|label| label.trim().is_empty()) {
        "labels must not be empty"
    } else if labels.iter().any(|label| label.len() > LONGEST_LABEL) {
        "label is too long (maximum is 256 characters)"
    } else if labels
        .iter()
        .any(|label| label.contains(',') || label.trim() != label)
    {
        "labels must not contain commas, nor start or end with a space"
    } else {
        return Ok(());
    };
    Err(errors::unprocessable("Validation Failed", &[problem]))
}

fn show(state: &GitHubState, now: u64, runner: &RegisteredRunner) -> Value {
    let online = runner.is_online(now, state.settings.offline_after_ms);
    json!({
        "id": runner.id,
        "runner_group_id": runner.group_id,
        "name": runner.name,
        "os": runner.os,
        "status": if online { "online" } else { "offline" },
        "busy": state.is_busy(runner),
        "labels": runner.labels.iter().map(|(id, name)| {
            json!({"id": id, "name": name, "type": "custom"})
        }).collect::<Vec<_>>(),
        "ephemeral": runner.ephemeral,
        "version": runner.version,
    })
}
