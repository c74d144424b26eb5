//! Scale sets and runner groups.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{access, errors};
use crate::{
    http::{ApiReply, ApiRequest},
    scale_sets::{ScaleSet, Statistics},
    scope::Scope,
    settings::RunnerGroup,
    state::GitHubState,
    time::rfc3339,
};

const DEFAULT_GROUP: u64 = 1;

/// Body of a creation or a change. The service ignores what only it decides.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SetBody {
    name: Option<String>,
    runner_group_id: Option<u64>,
    labels: Option<Vec<LabelBody>>,
    #[serde(rename = "RunnerSetting")]
    runner_setting: Option<SettingBody>,
    #[serde(rename = "id")]
    _id: Option<u64>,
    #[serde(rename = "runnerGroupName")]
    _runner_group_name: Option<String>,
    #[serde(rename = "createdOn")]
    _created_on: Option<String>,
    #[serde(rename = "runnerJitConfigUrl")]
    _runner_jit_config_url: Option<String>,
    #[serde(rename = "statistics")]
    _statistics: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelBody {
    name: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(rename = "id", default)]
    _id: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SettingBody {
    #[serde(default)]
    disable_update: bool,
    #[serde(rename = "ephemeral", default)]
    _ephemeral: bool,
    #[serde(rename = "isElastic", default)]
    _is_elastic: bool,
}

pub(super) fn list(
    state: &GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let scope = access::admin(state, now, request, &["runnerGroupId", "name"])?;
    let group: u64 = request
        .query_param("runnerGroupId")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| errors::invalid("runnerGroupId must be a number."))?;
    let name = request.query_param("name");
    let shown: Vec<Value> = state
        .scale_sets
        .live()
        .filter(|set| set.scope == scope && set.group_id == group)
        .filter(|set| name.is_none_or(|name| set.name.eq_ignore_ascii_case(name)))
        .map(|set| show(state, set, now))
        .collect();
    Ok(listed(shown))
}

pub(super) fn get(
    state: &GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let (_, id) = access::admin_of_set(state, now, request)?;
    shown(state, id, now)
}

pub(super) fn create(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let scope = access::admin(state, now, request, &[])?;
    let body: SetBody = access::body(request)?;
    let name = body.name.unwrap_or_default();
    if name.trim().is_empty() {
        return Err(errors::invalid(
            "The name of a scale set must not be empty.",
        ));
    }
    let group = find_group(state, &scope, body.runner_group_id.unwrap_or(DEFAULT_GROUP))?.id;
    check_name(state, &scope, group, &name, None)?;
    let labels = body.labels.unwrap_or_default();
    let mut labels = checked(labels)?;
    if labels.is_empty() {
        labels.push(name.clone());
    }
    if !state.settings.scale_sets.custom_labels {
        labels.truncate(1);
    }
    let id = state.scale_sets.take_set_id();
    let mut set = ScaleSet::new(id, scope, name, now);
    set.group_id = group;
    set.labels = labels;
    set.disable_update = body.runner_setting.is_some_and(|s| s.disable_update);
    state.scale_sets.insert(set);
    shown(state, id, now)
}

/// `PATCH …/{set}`. Labels stay as they are: clients that changed them saw no effect (ARC#4424).
pub(super) fn update(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let (scope, id) = access::admin_of_set(state, now, request)?;
    let body: SetBody = access::body(request)?;
    checked(body.labels.unwrap_or_default())?;
    let current = state.scale_sets.get(id).map(|set| set.group_id);
    let group = body.runner_group_id.or(current).unwrap_or(DEFAULT_GROUP);
    let group = find_group(state, &scope, group)?.id;
    if let Some(name) = &body.name {
        check_name(state, &scope, group, name, Some(id))?;
    }
    if let Some(set) = state.scale_sets.get_mut(id) {
        set.group_id = group;
        if let Some(name) = body.name {
            set.name = name;
        }
        if let Some(setting) = body.runner_setting {
            set.disable_update = setting.disable_update;
        }
    }
    shown(state, id, now)
}

pub(super) fn delete(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let (_, id) = access::admin_of_set(state, now, request)?;
    state.end_scale_set(id);
    Ok(ApiReply::empty(StatusCode::NO_CONTENT))
}

/// `GET …/runnergroups/?groupName=`
pub(super) fn groups(
    state: &GitHubState,
    now: u64,
    request: &ApiRequest,
) -> Result<ApiReply, ApiReply> {
    let scope = access::admin(state, now, request, &["groupName"])?;
    let name = request.query_param("groupName");
    let visible =
        |group: &&RunnerGroup| matches!(scope, Scope::Organization(_)) || group.id == DEFAULT_GROUP;
    let size = |group: &RunnerGroup| {
        let within = |id: u64, other: &Scope| id == group.id && *other == scope;
        let runners = state.runners.values();
        runners
            .filter(|runner| runner.is_registered() && within(runner.group_id, &runner.scope))
            .count()
    };
    let shown = state
        .settings
        .groups
        .iter()
        .filter(visible)
        .filter(|group| name.is_none_or(|name| group.name.eq_ignore_ascii_case(name)))
        .map(|group| {
            json!({
                "id": group.id,
                "name": group.name,
                "size": size(group),
                "isDefaultGroup": group.id == DEFAULT_GROUP,
            })
        })
        .collect();
    Ok(listed(shown))
}

/// Returns a list as the service has it.
pub(super) fn listed(value: Vec<Value>) -> ApiReply {
    ApiReply::json(
        StatusCode::OK,
        &json!({"count": value.len(), "value": value}),
    )
}

/// Returns a set as the service shows it.
pub(super) fn show(state: &GitHubState, set: &ScaleSet, now: u64) -> Value {
    let groups = &state.settings.groups;
    let group = groups.iter().find(|group| group.id == set.group_id);
    let labels: Vec<Value> = set
        .labels
        .iter()
        .map(|name| json!({"id": 0, "name": name, "type": "System"}))
        .collect();
    json!({
        "id": set.id,
        "name": set.name,
        "runnerGroupId": set.group_id,
        "runnerGroupName": group.map_or("", |group| group.name.as_str()),
        "labels": labels,
        "RunnerSetting": {"disableUpdate": set.disable_update, "ephemeral": true, "isElastic": true},
        "createdOn": rfc3339(set.created_at),
        "runnerJitConfigUrl": format!(
            "{}{}/_apis/runtime/runnerscalesets/{}/generatejitconfig",
            state.public_url, access::TENANT, set.id
        ),
        "statistics": statistics(state, set, now),
    })
}

/// Returns the counts of a set.
pub(super) fn statistics(state: &GitHubState, set: &ScaleSet, now: u64) -> Statistics {
    Statistics::of(set, &state.jobs, &state.runners, &state.settings, now)
}

fn shown(state: &GitHubState, id: u64, now: u64) -> Result<ApiReply, ApiReply> {
    let set = state.scale_sets.get(id);
    let set = set.ok_or_else(|| errors::no_set(&id.to_string()))?;
    Ok(ApiReply::json(StatusCode::OK, &show(state, set, now)))
}

/// Returns a runner group in which a set of the scope may be.
pub(super) fn find_group<'a>(
    state: &'a GitHubState,
    scope: &Scope,
    id: u64,
) -> Result<&'a RunnerGroup, ApiReply> {
    let organization = matches!(scope, Scope::Organization(_));
    state
        .settings
        .groups
        .iter()
        .find(|group| group.id == id && !group.hosted && (organization || id == DEFAULT_GROUP))
        .ok_or_else(|| {
            errors::runtime(
                StatusCode::NOT_FOUND,
                "RunnerGroupNotFoundException",
                &format!("No runner group found with identifier {id}."),
            )
        })
}

fn check_name(
    state: &GitHubState,
    scope: &Scope,
    group: u64,
    name: &str,
    own: Option<u64>,
) -> Result<(), ApiReply> {
    let taken = state.scale_sets.live().any(|set| {
        set.scope == *scope
            && set.group_id == group
            && Some(set.id) != own
            && set.name.eq_ignore_ascii_case(name)
    });
    if taken {
        return Err(errors::runtime(
            StatusCode::BAD_REQUEST,
            "RunnerScaleSetExistsException",
            &format!("The runner scale set {name} already exists."),
        ));
    }
    Ok(())
}

fn checked(labels: Vec<LabelBody>) -> Result<Vec<String>, ApiReply> {
    for label in &labels {
        if label.name.trim().is_empty() {
            return Err(errors::invalid("The name of a label must not be empty."));
        }
        if !label.kind.is_empty() && label.kind != "System" && label.kind != "User" {
            return Err(errors::invalid("The type of a label is System or User."));
        }
    }
    Ok(labels.into_iter().map(|label| label.name).collect())
}
