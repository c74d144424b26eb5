//! The knobs that can be turned while the server runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the server enforces and how it times things. Durations are milliseconds.
///
/// `POST /_sim/settings` takes any subset of these fields; unknown ones are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Calls per window in the bucket `core` (GitHub: 5,000 per hour).
    pub rate_limit: u64,
    /// Calls per window in the bucket `actions_runner_registration` (GitHub: 10,000 per hour).
    pub mint_rate_limit: u64,
    /// Length of a rate-limit window.
    pub rate_window_ms: u64,
    /// Whether secondary limits are enforced: points per minute and endpoint, calls at once.
    pub secondary_limits: bool,
    /// Points per minute and endpoint: a GET costs 1, anything else 5 (so 180 mints for 900).
    pub points_per_minute: u64,
    /// REST calls that may be in flight at once.
    pub concurrent_calls: u64,
    /// How long a new runner is missing from the list.
    pub list_lag_ms: u64,
    /// What is wrong with pages after the first.
    pub page_glitch: PageGlitch,
    /// An idle listening runner vanishes after this long; `null`: never.
    pub idle_reap_ms: Option<u64>,
    /// An ephemeral runner without a session is removed after this long (GitHub: a day).
    pub offline_expiry_ms: u64,
    /// A JIT config that was never used is refused after this long; `null`: never.
    pub unused_config_ms: Option<u64>,
    /// A job that is assigned and not acquired goes back to the queue after this long.
    pub assignment_timeout_ms: u64,
    /// How long a job's lock holds after it was acquired or renewed.
    pub lock_ms: u64,
    /// How long a poll without a message is held.
    pub poll_hold_ms: u64,
    /// A runner is offline this long after its last poll.
    pub offline_after_ms: u64,
    /// A session that nobody polls may be replaced after this long; until then, 409.
    pub session_lapse_ms: u64,
    /// Listeners below this version are refused when they ask for a message.
    pub minimum_version: Option<String>,
    /// Whether a runner with an assigned job that it has not acquired yet can be deleted (the job
    /// goes back to the queue). GitHub's answer is not known; refusing with 422 is the default.
    pub assigned_runner_deletable: bool,
    /// Runners that one group of one scope can hold.
    pub group_capacity: usize,
    /// How long an installation token works (GitHub: an hour).
    pub app_token_ms: u64,
    /// Whether the App's installations are suspended.
    pub app_suspended: bool,
    /// What the App may do where it is installed, as GitHub names it.
    pub app_permissions: BTreeMap<String, String>,
    /// The organisation's runner groups.
    pub groups: Vec<Group>,
}

/// How pages of the runner list differ from an honest cut of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageGlitch {
    /// Nothing is wrong.
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
pub struct Group {
    /// Its id; 1 is the default group.
    pub id: u64,
    /// Its name, unique in the organisation.
    pub name: String,
    /// `all`, `selected` or `private`.
    #[serde(default = "visible_to_all")]
    pub visibility: String,
    /// Repository names (without owner) that may use it when `visibility` is `selected`.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// Whether public repositories may use it.
    #[serde(default)]
    pub allows_public_repositories: bool,
    /// Whether GitHub's own larger runners live in it; nobody may register one there.
    #[serde(default)]
    pub hosted: bool,
}

fn visible_to_all() -> String {
    "all".into()
}

impl Group {
    fn plain(id: u64, name: &str) -> Self {
        Self {
            id,
            name: name.into(),
            visibility: visible_to_all(),
            repositories: vec![],
            allows_public_repositories: false,
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
            concurrent_calls: 100,
            list_lag_ms: 0,
            page_glitch: PageGlitch::None,
            idle_reap_ms: None,
            offline_expiry_ms: 86_400_000,
            unused_config_ms: None,
            assignment_timeout_ms: 60_000,
            lock_ms: 600_000,
            poll_hold_ms: 50_000,
            offline_after_ms: 30_000,
            session_lapse_ms: 240_000,
            minimum_version: None,
            assigned_runner_deletable: false,
            group_capacity: 10_000,
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
                Group::plain(1, "Default"),
                Group {
                    hosted: true,
                    ..Group::plain(2, "GitHub-hosted")
                },
            ],
        }
    }
}
