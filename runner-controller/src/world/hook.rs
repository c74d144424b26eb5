//! Hooks by which GitHub sends deliveries to this host, and the deliveries that failed.

use std::collections::BTreeMap;
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

/// Maximum number of hooks of a scope that are known. Repositories of an organisation can have one each.
pub const MAX_HOOKS: usize = 32;

/// Maximum length of a delivery's id. GitHub's have 36 characters.
pub const MAX_DELIVERY_ID: usize = 64;

/// The hook of each owner in each scope, as far as deliveries told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownHooks(BTreeMap<(ScopeId, HookOwner), u64>);

impl KnownHooks {
    /// Adds a hook, in place of an older one of its owner. Returns true if that is news.
    pub fn learn(&mut self, scope: &ScopeId, hook: Hook) -> bool {
        let of_scope = self.0.keys().filter(|(known, _)| known == scope).count();
        let key = (scope.clone(), hook.owner);
        match self.0.get_mut(&key) {
            // GitHub counts ids upwards.
            Some(known) if *known >= hook.id => false,
            Some(known) => {
                *known = hook.id;
                true
            }
            None if of_scope >= MAX_HOOKS => false,
            None => {
                self.0.insert(key, hook.id);
                true
            }
        }
    }

    /// Removes a hook. Returns true if it was known.
    pub fn forget(&mut self, scope: &ScopeId, hook: &Hook) -> bool {
        let key = (scope.clone(), hook.owner.clone());
        let is_known = self.0.get(&key) == Some(&hook.id);
        is_known && self.0.remove(&key).is_some()
    }

    /// Returns all hooks with their scopes.
    pub fn iter(&self) -> impl Iterator<Item = (ScopeId, Hook)> {
        self.0.iter().map(|((scope, owner), id)| {
            let owner = owner.clone();
            (scope.clone(), Hook { owner, id: *id })
        })
    }
}

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
