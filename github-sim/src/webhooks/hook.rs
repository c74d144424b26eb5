//! Hooks: the places to which GitHub sends events.

use serde::{Deserialize, Serialize};

use crate::scope::Scope;

/// Owner of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookTarget {
    /// A repository or an organisation.
    Scope(Scope),
    /// The GitHub App, for all its installations.
    App,
}

/// A hook to add.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookSpec {
    /// Owner.
    pub target: HookTarget,
    /// Address of the receiver, `http://…`.
    pub url: String,
    /// Secret of the signature. Deliveries have no signature without it.
    #[serde(default)]
    pub secret: Option<String>,
    /// Names of events.
    #[serde(default = "jobs")]
    pub events: Vec<String>,
}

fn jobs() -> Vec<String> {
    vec!["workflow_job".into()]
}

impl HookSpec {
    /// Returns a hook for the events of jobs.
    #[must_use]
    pub fn new(target: HookTarget, url: &str, secret: &str) -> Self {
        Self {
            target,
            url: url.into(),
            secret: Some(secret.into()),
            events: jobs(),
        }
    }
}

/// A hook that exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hook {
    pub(crate) id: u64,
    pub(crate) spec: HookSpec,
    pub(crate) created_at: u64,
    pub(crate) deleted: bool,
}

impl Hook {
    /// Returns the kind of owner as deliveries name it.
    pub(crate) fn target_type(&self) -> &'static str {
        match &self.spec.target {
            HookTarget::Scope(Scope::Repository { .. }) => "repository",
            HookTarget::Scope(Scope::Organization(_)) => "organization",
            HookTarget::App => "integration",
        }
    }

    /// Tells whether the hook gets an event of a job of `origin`.
    pub(crate) fn wants(&self, event: &str, origin: &Scope) -> bool {
        let within = match &self.spec.target {
            HookTarget::Scope(scope) => scope.serves(origin),
            HookTarget::App => true,
        };
        within && !self.deleted && self.spec.events.iter().any(|known| known == event)
    }
}
