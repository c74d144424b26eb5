//! Payloads of events, as GitHub's description of its webhooks has them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::hook::{Hook, HookTarget};
use crate::{
    github_app, github_json,
    scope::Scope,
    settings::Settings,
    state::{JobRecord, RegisteredRunner},
    time::rfc3339,
};

/// The sender of deliveries: what payloads need to know of the server.
pub(crate) struct Sender<'a> {
    pub(crate) public_url: &'a str,
    pub(crate) settings: &'a Settings,
    /// Id of the App.
    pub(crate) app: Option<u64>,
    /// Organisations and repositories that exist.
    pub(crate) scopes: &'a [Scope],
}

/// Returns the installation that a hook's payloads name.
pub(super) fn installation(sender: &Sender<'_>, hook: &Hook, owner: &str) -> Option<u64> {
    let installed = github_app::installation_of(sender.scopes, owner);
    installed.filter(|_| hook.spec.target == HookTarget::App)
}

/// Returns the payload of a `workflow_job` event.
pub(super) fn workflow_job(
    sender: &Sender<'_>,
    runners: &BTreeMap<u64, RegisteredRunner>,
    hook: &Hook,
    job: &JobRecord,
    (action, status): (&str, &str),
) -> Value {
    let base = sender.public_url;
    let (owner, name) = job.origin.repository();
    let mut shown = github_json::job(base, runners, &sender.settings.groups, job);
    shown["status"] = status.into();
    if status != "completed" {
        shown["conclusion"] = Value::Null;
        shown["completed_at"] = Value::Null;
    }
    let mut payload = json!({
        "action": action,
        "workflow_job": shown,
        "repository": repository(base, owner, name, job),
        "organization": organization(base, owner),
        "sender": github_json::user(base, owner),
    });
    if status == "waiting" {
        payload["deployment"] = deployment(base, owner, name, job);
    }
    if let Some(id) = installation(sender, hook, owner) {
        payload["installation"] = json!({"id": id, "node_id": "MDIzOkludGVncmF0aW9u"});
    }
    payload
}

/// Returns the payload of a `ping` event.
pub(super) fn ping(sender: &Sender<'_>, hook: &Hook) -> Value {
    let base = sender.public_url;
    let mut config = json!({
        "content_type": "json",
        "insecure_ssl": "0",
        "url": hook.spec.url,
    });
    if hook.spec.secret.is_some() {
        config["secret"] = "********".into();
    }
    let mut payload = json!({
        "zen": "Anything added dilutes everything else.",
        "hook_id": hook.id,
        "hook": {
            "type": match hook.target_type() {
                "integration" => "App",
                "organization" => "Organization",
                _ => "Repository",
            },
            "id": hook.id,
            "name": "web",
            "active": true,
            "events": hook.spec.events,
            "config": config,
            "updated_at": rfc3339(hook.created_at),
            "created_at": rfc3339(hook.created_at),
        },
    });
    match &hook.spec.target {
        HookTarget::App => payload["hook"]["app_id"] = sender.app.unwrap_or(0).into(),
        HookTarget::Scope(scope) => {
            let url = format!("{base}{}/hooks/{}", scope.rest_prefix(), hook.id);
            payload["hook"]["ping_url"] = format!("{url}/pings").into();
            payload["hook"]["deliveries_url"] = format!("{url}/deliveries").into();
            payload["hook"]["url"] = url.into();
            payload["sender"] = github_json::user(base, scope.owner());
            match scope {
                Scope::Organization(owner) => {
                    payload["organization"] = organization(base, owner);
                }
                Scope::Repository { owner, name } => {
                    payload["repository"] = whole_repository(base, owner, name, false, 0);
                }
            }
        }
    }
    payload
}

fn repository(base: &str, owner: &str, name: &str, job: &JobRecord) -> Value {
    whole_repository(base, owner, name, job.spec.public, job.created_at)
}

/// Returns the whole form of a repository.
fn whole_repository(base: &str, owner: &str, name: &str, public: bool, at: u64) -> Value {
    let mut shown = github_json::repository(base, owner, name);
    let web = format!("{base}/{owner}/{name}");
    shown["private"] = (!public).into();
    shown["visibility"] = if public { "public" } else { "private" }.into();
    for (key, value) in [
        ("git_url", format!("git://{owner}/{name}.git")),
        ("ssh_url", format!("git@{owner}:{owner}/{name}.git")),
        ("clone_url", format!("{web}.git")),
        ("svn_url", web),
        ("default_branch", "main".into()),
    ] {
        shown[key] = value.into();
    }
    for key in [
        "forks",
        "forks_count",
        "open_issues",
        "open_issues_count",
        "size",
        "stargazers_count",
        "watchers",
        "watchers_count",
    ] {
        shown[key] = 0.into();
    }
    for key in [
        "allow_forking",
        "has_downloads",
        "has_issues",
        "has_projects",
        "has_wiki",
    ] {
        shown[key] = true.into();
    }
    for key in [
        "archived",
        "disabled",
        "has_discussions",
        "has_pages",
        "is_template",
        "web_commit_signoff_required",
    ] {
        shown[key] = false.into();
    }
    for key in ["homepage", "language", "license", "mirror_url"] {
        shown[key] = Value::Null;
    }
    for key in ["created_at", "updated_at", "pushed_at"] {
        shown[key] = rfc3339(at).into();
    }
    shown["topics"] = json!([]);
    shown["custom_properties"] = json!({});
    shown
}

fn organization(base: &str, owner: &str) -> Value {
    let url = format!("{base}/orgs/{owner}");
    json!({
        "login": owner,
        "id": 1,
        "node_id": "O_standin",
        "url": url,
        "repos_url": format!("{url}/repos"),
        "events_url": format!("{url}/events"),
        "hooks_url": format!("{url}/hooks"),
        "issues_url": format!("{url}/issues"),
        "members_url": format!("{url}/members{{/member}}"),
        "public_members_url": format!("{url}/public_members{{/member}}"),
        "avatar_url": format!("{base}/avatars/{owner}"),
        "description": "",
    })
}

/// Returns the deployment for which a job waits.
fn deployment(base: &str, owner: &str, name: &str, job: &JobRecord) -> Value {
    let repository = format!("{base}/repos/{owner}/{name}");
    let url = format!("{repository}/deployments/{}", job.id);
    json!({
        "url": url,
        "id": job.id,
        "node_id": format!("DE_{}", job.id),
        "task": "deploy",
        "original_environment": "production",
        "environment": "production",
        "description": null,
        "created_at": rfc3339(job.created_at),
        "updated_at": rfc3339(job.created_at),
        "statuses_url": format!("{url}/statuses"),
        "repository_url": repository,
        "creator": github_json::user(base, owner),
        "sha": crate::state::SHA,
        "ref": "main",
        "payload": {},
        "transient_environment": false,
        "production_environment": false,
        "performed_via_github_app": null,
    })
}
