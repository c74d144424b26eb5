//! Hooks by which GitHub sends deliveries to this host, and the deliveries that failed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;

use serde::{Deserialize, Serialize};

use super::RegistryError;
use crate::pool::ScopeId;

/// Hook at GitHub.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hook {
    /// Owner of the hook.
    pub owner: HookOwner,
    /// Its id. The path of an App's hook does not have it.
    pub id: u64,
}

/// Owner of a hook.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookOwner {
    /// The GitHub App with whose key the host logs in.
    App,
    /// The organisation with this name.
    Organization(String),
    /// The repository with this name, `owner/repo`.
    Repository(String),
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            HookOwner::App => f.write_str("the App's hook"),
            HookOwner::Organization(name) | HookOwner::Repository(name) => {
                write!(f, "hook {} of {name}", self.id)
            }
        }
    }
}

/// Maximum number of hooks of a scope that are known. An organisation has a few.
pub const MAX_HOOKS: usize = 8;

/// The hooks of each scope, as far as deliveries told of them.
pub type KnownHooks = BTreeMap<ScopeId, BTreeSet<Hook>>;

/// An attempt to deliver that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Its id, with which another attempt is asked for.
    pub id: u64,
    /// Id of the delivery, which all its attempts have.
    pub delivery: String,
    /// Time of the attempt in milliseconds since 1970.
    pub unix_ms: u64,
}

/// Deliveries of hooks at GitHub.
pub trait Deliveries: Send + Sync + 'static {
    /// Returns the attempts since a time to deliver events of jobs that failed, and true as well if there are more.
    fn failed(
        &self,
        hook: &Hook,
        since_unix_ms: u64,
    ) -> impl Future<Output = Result<(Vec<FailedAttempt>, bool), RegistryError>> + Send;

    /// Asks GitHub to deliver once more what an attempt could not.
    fn repeat(
        &self,
        hook: &Hook,
        attempt: u64,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send;
}
