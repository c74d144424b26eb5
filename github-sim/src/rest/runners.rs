//! Runners and their groups.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{errors, paging::PageRequest};
use crate::{
    http::{ApiReply, ApiRequest},
    jit_config, runner_key,
    scope::Scope,
    settings::{PagingFault, RunnerGroup},
    state::{GitHubState, RUNNER_ID_STEP, RegisteredRunner},
    view::{GoneCause, JobState},
};

const LONGEST_NAME: usize = 64;
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
    check_name(&ask.name)?;
    check_labels(&ask.labels)?;
    if ask.work_folder.trim().is_empty() {
        return Err(errors::unprocessable(
            "Validation Failed",
            &["work_folder must not be empty"],
        ));
    }
    let group = find_group(state, scope, ask.runner_group_id)?;
    let peers = || {
        state
            .runners
            .values()
            .filter(|runner| runner.is_registered() && runner.scope == *scope)
    };
    if peers().any(|runner| runner.name.eq_ignore_ascii_case(&ask.name)) {
        return Err(errors::plain(
            StatusCode::CONFLICT,
            &format!(
                "Already exists - A runner with the name {:?} already exists.",
                ask.name
            ),
        ));
    }
    let capacity = state.settings.group_capacity;
    if peers().filter(|runner| runner.group_id == group.id).count() >= capacity {
        return Err(errors::unprocessable(
            &format!("Runner group has reached the max limit of {capacity} runners."),
            &[],
        ));
    }
    let mut runner = new_runner(state, now, scope, &ask);
    let key = runner_key::key_of(runner.id / RUNNER_ID_STEP);
    runner.modulus.clone_from(&key.modulus);
    let config = jit_config::encode(
        &runner,
        &key,
        state.settings.require_fips,
        &group.name,
        &ask.work_folder,
        &state.public_url,
    );
    let shown = show(state, now, &runner);
    state.runners.insert(runner.id, runner);
    Ok(ApiReply::json(
        StatusCode::CREATED,
        &json!({"runner": shown, "encoded_jit_config": config}),
    ))
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
                "restricted_to_workflows": false,
                "selected_workflows": [],
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

fn check_name(name: &str) -> Result<(), ApiReply> {
    let problem = if name.trim().is_empty() || name.trim() != name {
        "name must not be empty, nor start or end with a space"
    } else if name.chars().count() > LONGEST_NAME {
        "name is too long (maximum is 64 characters)"
    } else if name
        .chars()
        .any(|c| c.is_control() || "\"/:<>\\|*?".contains(c))
    {
        "name must not contain \" / : < > \\ | * ? or control characters"
    } else {
        return Ok(());
    };
    Err(errors::unprocessable("Validation Failed", &[problem]))
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

fn new_runner(
    state: &mut GitHubState,
    now: u64,
    scope: &Scope,
    ask: &MintBody,
) -> RegisteredRunner {
    let mut labels: Vec<(u64, String)> = vec![];
    for label in &ask.labels {
        let label = label.to_lowercase();
        if !labels.iter().any(|(_, known)| *known == label) {
            labels.push((state.take_label_id(), label));
        }
    }
    RegisteredRunner {
        id: state.take_runner_id(),
        group_id: ask.runner_group_id,
        name: ask.name.clone(),
        scope: scope.clone(),
        labels,
        os: "unknown".into(),
        version: None,
        ephemeral: true,
        created_at: now,
        listed_from: now + state.settings.list_lag_ms,
        client_id: crate::random::uuid(),
        modulus: String::new(),
        access_token: None,
        session: None,
        idle_since: now,
        job: None,
        ghost: false,
        gone: None,
        planted: None,
    }
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
