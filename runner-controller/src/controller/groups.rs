//! Runner groups: a look at GitHub's list at the start and each hour, so that a restriction is told before jobs wait.
//!
//! Nothing depends on the result. A look that fails is told once, and neither delays a runner nor makes the host
//! unhealthy.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{info, warn};

use crate::config::{Config, PoolConfig, Scope};
use crate::pool::{GroupOwner, PoolName, RunnerGroup, ScopeId, Timestamp, group_problems};
use crate::status::GroupStatus;
use crate::world::{Failure as _, RegistryError};

/// Interval between looks. Each costs a call for 100 groups.
const INTERVAL: Duration = Duration::from_hours(1);
/// Interval after a look that failed for a reason that passes.
const RETRY: Duration = Duration::from_mins(5);

/// Groups of the pools, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct GroupChecks {
    looks: BTreeMap<ScopeId, Look>,
    found: BTreeMap<PoolName, GroupStatus>,
}

#[derive(Debug, Default)]
struct Look {
    is_under_way: bool,
    due_at: Timestamp,
    error: Option<String>,
}

impl GroupChecks {
    /// Returns the group of a pool, if GitHub told of it.
    pub(super) fn of(&self, pool: &PoolName) -> Option<GroupStatus> {
        self.found.get(pool).cloned()
    }

    /// Returns true if a look at the groups of a scope is due, which then is under way. A repository has none.
    pub(super) fn begin(&mut self, config: &Config, scope: &ScopeId, now: Timestamp) -> bool {
        if owner(config, scope).is_none() {
            return false;
        }
        let look = self.looks.entry(scope.clone()).or_default();
        let is_due = !look.is_under_way && look.due_at <= now;
        look.is_under_way |= is_due;
        is_due
    }

    /// Applies the answer to a look.
    pub(super) fn answered(
        &mut self,
        config: &Config,
        scope: &ScopeId,
        result: Result<Vec<RunnerGroup>, RegistryError>,
        now: Timestamp,
    ) {
        let look = self.looks.entry(scope.clone()).or_default();
        look.is_under_way = false;
        let groups = match result {
            Ok(groups) => groups,
            Err(error) => {
                let wait = if error.is_transient() {
                    RETRY
                } else {
                    INTERVAL
                };
                look.due_at = now + error.retry_after.unwrap_or_default().max(wait);
                let text = error.to_string();
                if look.error.as_ref() != Some(&text) {
                    info!(
                        %scope, %error,
                        "cannot look up the runner groups of {scope}: {error}; runners start all the same"
                    );
                }
                look.error = Some(text);
                return;
            }
        };
        look.due_at = now + INTERVAL;
        look.error = None;
        let Some(owner) = owner(config, scope) else {
            return;
        };
        for pool in config.pools.iter().filter(|pool| pool.scope == *scope) {
            let status = GroupStatus {
                name: pool.runner_group.clone(),
                problems: group_problems(&groups, &pool.runner_group, owner),
            };
            let before = self.found.insert(pool.name.clone(), status.clone());
            log(pool, before.as_ref(), &status);
        }
    }
}

/// Logs the problems that are new, and the end of all.
fn log(pool: &PoolConfig, before: Option<&GroupStatus>, now: &GroupStatus) {
    let (pool, group) = (&pool.name, &now.name);
    let before = before.map(|before| &before.problems[..]);
    let before = before.unwrap_or_default();
    for problem in &now.problems {
        if before.contains(problem) {
            continue;
        }
        if problem.stops_the_pool() {
            warn!(%pool, group, "pool {pool}: runner group {group:?} {problem}");
        } else {
            info!(%pool, group, "pool {pool}: runner group {group:?} {problem}");
        }
    }
    if now.problems.is_empty() && !before.is_empty() {
        info!(%pool, group, "pool {pool}: runner group {group:?} is in order again");
    }
}

/// Returns the owner of a scope's groups; a repository has none.
fn owner(config: &Config, scope: &ScopeId) -> Option<GroupOwner> {
    match config.scope(scope)?.scope {
        Scope::Repository { .. } => None,
        Scope::Organization { .. } => Some(GroupOwner::Organization),
        Scope::Enterprise { .. } => Some(GroupOwner::Enterprise),
    }
}
