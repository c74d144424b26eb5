//! Settings that can change while the server runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    scale_set_settings::ScaleSetSettings, scope::Scope, state::JobRecord, webhooks::WebhookSettings,
};

/// Path and ref of the workflow of every job.
const WORKFLOW: &str = ".github/workflows/ci.yml@refs/heads/main";

/// Limits, times and faults of the server. Times are milliseconds.
///
/// `POST /_sim/settings` takes any of these fields and refuses unknown ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Maximum number of calls per window in the bucket `core` (GitHub: 5,000 per hour).
    pub rate_limit: u64,
    /// Maximum number of calls per window in the bucket `actions_runner_registration` (GitHub: 10,000 per
    /// hour).
    pub mint_rate_limit: u64,
    /// Length of a rate-limit window.
    pub rate_window_ms: u64,
    /// Enforces secondary limits: points per minute and endpoint, calls at once, registrations in five minutes.
    pub secondary_limits: bool,
    /// Maximum number of points per minute and endpoint. A GET costs 1, another method 5, so 900 points are
    /// 180 mints.
    pub points_per_minute: u64,
    /// Maximum number of registrations in five minutes. GitHub allows 1,500 for a repository, organisation or
    /// enterprise ("Limits in GitHub Actions"); here it is for each account.
    pub registrations_per_five_minutes: usize,
    /// Maximum number of REST calls in flight.
    pub concurrent_calls: u64,
    /// Timeout for the body of a request (GitHub ends every request after 10 s:
    /// <https://docs.github.com/rest/using-the-rest-api/troubleshooting-the-rest-api>).
    pub body_timeout_ms: u64,
    /// Time until the list shows a new runner.
    pub list_lag_ms: u64,
    /// Fault in the pages after the first.
    pub paging_fault: PagingFault,
    /// Time until an idle listening runner is removed; `null` for never.
    pub idle_reap_ms: Option<u64>,
    /// Time until an ephemeral runner without a session is removed (GitHub: a day).
    pub offline_expiry_ms: u64,
    /// Time until an unused JIT config is refused; `null` for never.
    pub unused_config_ms: Option<u64>,
    /// Time until a job that is assigned and not acquired goes back to the queue.
    pub assignment_timeout_ms: u64,
    /// Time from acquire or renewal to the end of a job's lock.
    pub lock_ms: u64,
    /// Time that a poll without a message is held.
    pub poll_hold_ms: u64,
    /// Time from a runner's last poll until it is offline.
    pub offline_after_ms: u64,
    /// Time from the last poll until a session may be replaced. Until then the answer is 409.
    pub session_lapse_ms: u64,
    /// Minimum version of a listener. Older ones are refused when they ask for a message.
    pub minimum_version: Option<String>,
    /// Versions of the runner for which GitHub tells the dates of its refusal. Another version is not found.
    pub runner_versions: BTreeMap<String, VersionDates>,
    /// Makes new JIT configs require FIPS cryptography, so listeners sign with PS256.
    pub require_fips: bool,
    /// Allows to delete a runner whose job is assigned and not acquired; the job goes back to the queue.
    /// GitHub's answer is not known. The default is to refuse with 422.
    pub assigned_runner_deletable: bool,
    /// Maximum number of runners in one group of one scope.
    pub group_capacity: usize,
    /// Lifetime of a listener's access token (GitHub announces an hour).
    pub listener_token_ms: u64,
    /// Lifetime of an installation token (GitHub: an hour).
    pub app_token_ms: u64,
    /// Suspends the App's installations.
    pub app_suspended: bool,
    /// Permissions of the App's installations, by GitHub's names.
    pub app_permissions: BTreeMap<String, String>,
    /// The organisation's runner groups.
    pub groups: Vec<RunnerGroup>,
    /// Scale sets.
    pub scale_sets: ScaleSetSettings,
    /// Webhook deliveries.
    pub webhooks: WebhookSettings,
}

/// Dates from which GitHub refuses a version of the runner, in RFC 3339; `null` for no date.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VersionDates {
    /// Date from which it registers no runner.
    pub registration_deprecates_at: Option<String>,
    /// Date from which a runner gets no job.
    pub runtime_deprecates_at: Option<String>,
}

/// Fault in the pages of the runner list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PagingFault {
    /// The pages hold every runner once.
    #[default]
    None,
    /// Every page after the first lacks its first runner.
    Skip,
    /// Every page after the first starts with the last runner of the page before it.
    Repeat,
}

/// A runner group of the organisation scopes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunnerGroup {
    /// Id; 1 is the default group.
    pub id: u64,
    /// Name, unique in the organisation.
    pub name: String,
    /// `all`, `selected` or `private`.
    #[serde(default = "visible_to_all")]
    pub visibility: String,
    /// Names, without owner, of the repositories that may use the group if `visibility` is `selected`.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// Allows public repositories to use the group.
    #[serde(default)]
    pub allows_public_repositories: bool,
    /// Workflows that alone may use the group, such as
    /// `acme/widgets/.github/workflows/ci.yml@refs/heads/main`; `null` for all.
    #[serde(default)]
    pub selected_workflows: Option<Vec<String>>,
    /// Marks a group of GitHub's larger runners. A runner cannot be registered in it.
    #[serde(default)]
    pub hosted: bool,
}

impl Settings {
    /// Tells whether a runner group of `scope` takes a job. Runners of a repository are outside of groups.
    pub(crate) fn group_admits(&self, scope: &Scope, group: u64, job: &JobRecord) -> bool {
        let Scope::Organization(_) = scope else {
            return true;
        };
        let (owner, repository) = job.origin.repository();
        let Some(group) = self.groups.iter().find(|known| known.id == group) else {
            return false;
        };
        let visible = group.visibility != "selected"
            || group
                .repositories
                .iter()
                .any(|name| name.eq_ignore_ascii_case(repository));
        let takes_public = group.allows_public_repositories && group.visibility != "private";
        let workflow = format!("{owner}/{repository}/{WORKFLOW}");
        let runs =
            (group.selected_workflows.as_ref()).is_none_or(|selected| selected.contains(&workflow));
        visible && runs && (!job.spec.public || takes_public)
    }
}

fn visible_to_all() -> String {
    "all".into()
}

impl RunnerGroup {
    fn plain(id: u64, name: &str) -> Self {
        Self {
            id,
            name: name.into(),
            visibility: visible_to_all(),
            repositories: vec![],
            allows_public_repositories: false,
            selected_workflows: None,
            hosted: false,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rate_limit: 5_000,
            mint_rate_limit: 10_000,
            rate_window_ms: 3_600_000,
            secondary_limits: false,
            points_per_minute: 900,
            registrations_per_five_minutes: 1_500,
            concurrent_calls: 100,
            body_timeout_ms: 10_000,
            list_lag_ms: 0,
            paging_fault: PagingFault::None,
            idle_reap_ms: None,
            offline_expiry_ms: 86_400_000,
            unused_config_ms: None,
            assignment_timeout_ms: 60_000,
            lock_ms: 600_000,
            poll_hold_ms: 50_000,
            offline_after_ms: 30_000,
            session_lapse_ms: 240_000,
            minimum_version: None,
            runner_versions: BTreeMap::new(),
            require_fips: false,
            assigned_runner_deletable: false,
            group_capacity: 10_000,
            listener_token_ms: 3_600_000,
            app_token_ms: 3_600_000,
            app_suspended: false,
            app_permissions: [
                ("administration", "write"),
                ("metadata", "read"),
                ("organization_self_hosted_runners", "write"),
            ]
            .map(|(name, level)| (name.to_owned(), level.to_owned()))
            .into(),
            groups: vec![
                RunnerGroup::plain(1, "Default"),
                RunnerGroup {
                    hosted: true,
                    ..RunnerGroup::plain(2, "GitHub-hosted")
                },
            ],
            scale_sets: ScaleSetSettings::default(),
            webhooks: WebhookSettings::default(),
        }
    }
}
