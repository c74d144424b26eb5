//! Runners of scale sets.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{access, errors, sets};
use crate::{
    http::{ApiReply, ApiRequest},
    registration::{self, RunnerRequest},
    scope::Scope,
    state::{GitHubState, RegisteredRunner},
    view::{GoneCause, JobState},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MintBody {
    name: String,
    #[serde(default)]
    work_folder: String,
}

/// `POST …/{set}/generatejitconfig`
pub(super) fn mint(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let (scope, id) = access::admin_of_set(state, now, request)?;
    let body: MintBody = access::body(request)?;
    if let Some(problem) = registration::problem_of_name(&body.name) {
        return Err(errors::invalid(problem));
    }
    if registration::is_taken(state, &scope, &body.name) {
        return Err(errors::task(
            StatusCode::CONFLICT,
            "AgentExistsException",
            &format!(
                "Already exists - a runner with the name {} exists.",
                body.name
            ),
        ));
    }
    let Some(set) = state.scale_sets.get(id) else {
        return Err(errors::no_set(&id.to_string()));
    };
    let (group_id, labels, disable_update) = (set.group_id, set.labels.clone(), set.disable_update);
    let group = sets::find_group(state, &scope, group_id)?.name.clone();
    let work_folder = if body.work_folder.is_empty() {
        "_work"
    } else {
        &body.work_folder
    };
    let asked = RunnerRequest {
        scope: &scope,
        group: (group_id, &group),
        name: &body.name,
        labels: &labels,
        work_folder,
        scale_set: Some(id),
        disable_update,
    };
    let (runner, config) = registration::register(state, now, &asked);
    Ok(ApiReply::json(
        StatusCode::OK,
        &json!({
            "runner": {"id": runner, "name": body.name, "runnerScaleSetId": id},
            "encodedJITConfig": config,
        }),
    ))
}

/// `GET …/agents?agentName=`
pub(super) fn find(
    state: &GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let scope = access::admin(state, now, request, &["agentName"])?;
    let name = request
        .query_param("agentName")
        .ok_or_else(|| errors::invalid("agentName is missing."))?;
    let shown = in_scope(state, &scope)
        .filter(|runner| runner.name == name)
        .map(show)
        .collect();
    Ok(sets::listed(shown))
}

/// `GET …/agents/{agent}`
pub(super) fn get(
    state: &GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let runner = named(state, now, request)?;
    Ok(ApiReply::json(StatusCode::OK, &show(runner)))
}

/// `DELETE …/agents/{agent}`
pub(super) fn delete(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let runner = named(state, now, request)?;
    let assigned = runner
        .job
        .and_then(|job| state.jobs.get(&job))
        .is_some_and(|job| job.state == JobState::Assigned);
    if state.is_busy(runner) || (assigned && !state.settings.assigned_runner_deletable) {
        return Err(errors::task(
            StatusCode::BAD_REQUEST,
            "JobStillRunningException",
            &format!("Runner {} is still running a job.", runner.name),
        ));
    }
    let id = runner.id;
    state.remove_runner(id, GoneCause::DeletedByRest, now);
    Ok(ApiReply::empty(StatusCode::NO_CONTENT))
}

fn named<'a>(
    state: &'a GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<&'a RegisteredRunner, ApiReply> {
    let scope = access::admin(state, now, request, &[])?;
    let text = request.path_param("agent").unwrap_or_default();
    let id: Option<u64> = text.parse().ok();
    id.and_then(|id| state.runners.get(&id))
        .filter(|runner| runner.is_registered() && runner.scope == scope)
        .ok_or_else(|| {
            errors::task(
                StatusCode::NOT_FOUND,
                "AgentNotFoundException",
                &format!("No agent found with identifier {text}."),
            )
        })
}

fn in_scope<'a>(
    state: &'a GitHubState,
    scope: &'a Scope,
) -> impl Iterator<Item = &'a RegisteredRunner> {
    state
        .runners
        .values()
        .filter(move |runner| runner.is_registered() && runner.scope == *scope)
}

/// Returns a reference to a runner. `ephemeral` follows from the set, so the service leaves it out.
fn show(runner: &RegisteredRunner) -> Value {
    json!({
        "id": runner.id,
        "name": runner.name,
        "runnerScaleSetId": runner.scale_set.unwrap_or(0),
    })
}
