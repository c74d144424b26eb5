//! The paths of GitHub's API that one scope uses.

use url::{Position, Url};

use crate::config::{GitHubConfig, Scope};
use crate::pool::RunnerVersion;
use crate::world::{Hook, HookOwner, RunnerId};

/// The paths for one scope, below the path of the API's base.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    api_url: Url,
    scope: Scope,
}

impl Endpoints {
    pub(super) fn new(config: &GitHubConfig) -> Self {
        Self {
            api_url: config.api_url.clone(),
            scope: config.scope.clone(),
        }
    }

    /// Returns the path of a new runner's JIT config.
    pub(super) fn jit_config(&self) -> String {
        self.actions(&["runners", "generate-jitconfig"])
    }

    /// Returns the path of the first page of runners.
    pub(super) fn runners(&self) -> String {
        full_pages(self.actions(&["runners"]))
    }

    /// Returns the path of one runner.
    pub(super) fn runner(&self, id: RunnerId) -> String {
        self.actions(&["runners", &id.to_string()])
    }

    /// Returns the path of the tokens for new registrations.
    pub(super) fn registration_token(&self) -> String {
        self.actions(&["runners", "registration-token"])
    }

    /// Returns the address at which a registration token is exchanged for access to scale sets.
    pub(super) fn runner_registration(&self) -> Url {
        let mut url = self.api_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .pop_if_empty()
                .extend(["actions", "runner-registration"]);
        }
        url
    }

    /// Returns the path of the first page of runner groups. A repository has none.
    pub(super) fn groups(&self) -> String {
        full_pages(self.actions(&["runner-groups"]))
    }

    /// Returns the path of the dates from which a version of the runner is refused.
    pub(super) fn version(&self, version: RunnerVersion) -> String {
        self.actions(&["runners", "deprecations", &version.to_string()])
    }

    /// Returns the path of the newest runs of a repository that have this status.
    pub(super) fn runs(&self, repository: &str, status: &str) -> String {
        let path = self.of_repository(repository, &["runs"]);
        full_pages(path) + "&status=" + status
    }

    /// Returns the path of the newest run of a repository.
    pub(super) fn newest_run(&self, repository: &str) -> String {
        self.of_repository(repository, &["runs"]) + "?per_page=1"
    }

    /// Returns the path of the first page of jobs of a run's last attempt.
    pub(super) fn jobs_of_run(&self, repository: &str, run: u64) -> String {
        let path = self.of_repository(repository, &["runs", &run.to_string(), "jobs"]);
        full_pages(path) + "&filter=latest"
    }

    /// Returns the path of one job.
    pub(super) fn job(&self, repository: &str, id: u64) -> String {
        self.of_repository(repository, &["jobs", &id.to_string()])
    }

    /// Returns the path of the first page of a hook's attempts to deliver that failed, newest first.
    pub(super) fn failed_deliveries(&self, hook: &Hook) -> String {
        full_pages(self.of_hook(hook, &[])) + "&status=failure"
    }

    /// Returns the path of further attempts for an attempt to deliver.
    pub(super) fn delivery_attempts(&self, hook: &Hook, attempt: u64) -> String {
        self.of_hook(hook, &[&attempt.to_string(), "attempts"])
    }

    fn of_hook(&self, hook: &Hook, rest: &[&str]) -> String {
        let id = hook.id.to_string();
        let mut path = match &hook.owner {
            HookOwner::App => vec!["app", "hook"],
            HookOwner::Organization(org) => vec!["orgs", org, "hooks", &id],
            HookOwner::Repository(repository) => {
                let (owner, repo) = repository.split_once('/').unwrap_or((repository, ""));
                vec!["repos", owner, repo, "hooks", &id]
            }
        };
        path.push("deliveries");
        path.extend(rest);
        self.url(&path)
    }

    /// Returns the path of the App's installation in this scope.
    pub(super) fn installation(&self) -> String {
        let mut path = self.scope_path();
        path.push("installation");
        self.url(&path)
    }

    /// Returns the path of an installation's tokens.
    pub(super) fn access_tokens(&self, installation: u64) -> String {
        let id = installation.to_string();
        self.url(&["app", "installations", &id, "access_tokens"])
    }

    fn scope_path(&self) -> Vec<&str> {
        match &self.scope {
            Scope::Repository { owner, repo } => vec!["repos", owner, repo],
            Scope::Organization { org } => vec!["orgs", org],
            Scope::Enterprise { enterprise } => vec!["enterprises", enterprise],
        }
    }

    fn actions(&self, rest: &[&str]) -> String {
        let mut path = self.scope_path();
        path.push("actions");
        path.extend(rest);
        self.url(&path)
    }

    /// Returns a path of the actions of a repository (`owner/repo`).
    fn of_repository(&self, repository: &str, rest: &[&str]) -> String {
        let (owner, repo) = repository.split_once('/').unwrap_or((repository, ""));
        let mut path = vec!["repos", owner, repo, "actions"];
        path.extend(rest);
        self.url(&path)
    }

    fn url(&self, path: &[&str]) -> String {
        let mut url = self.api_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url[Position::BeforePath..].to_owned()
    }
}

/// Asks for pages of 100, which is the most that GitHub gives.
fn full_pages(path: String) -> String {
    path + "?per_page=100"
}
