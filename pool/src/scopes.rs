//! The scopes of all pools: which are configured, and in which the pool of a slot registers runners.

use super::names::{PoolName, RunnerName, SlotId};
use super::orphans::Orphans;
use super::pace::Pace;
use super::pools::Pools;
use super::scope::ScopeId;
use super::scope_state::{Minting, ScopeState};
use super::spec::Spec;
use super::time::Timestamp;

impl Pools {
    /// Returns the configured scopes.
    pub fn configured(&self) -> impl Iterator<Item = (&ScopeId, &ScopeState)> {
        let scopes = self.scopes.iter();
        scopes.filter(|(_, state)| state.minting.is_some())
    }

    /// Returns true if nothing is left in the configured scopes.
    #[must_use]
    pub fn has_no_orphans(&self) -> bool {
        let mut configured = self.configured();
        configured.all(|(_, state)| state.orphans.is_empty())
    }

    /// Returns the orphaned registrations of the scopes of earlier configurations.
    pub fn former(&self) -> impl Iterator<Item = (&ScopeId, &Orphans)> {
        let scopes = self.scopes.iter();
        let former = scopes.filter(|(_, state)| state.minting.is_none());
        former.map(|(scope, state)| (scope, &state.orphans))
    }

    /// Returns the state of a scope; `None` if nothing of this host is known there.
    #[must_use]
    pub fn scope(&self, scope: &ScopeId) -> Option<&ScopeState> {
        self.scopes.get(scope)
    }

    /// Returns the pace of a configured scope, for what GitHub says of it and for its record.
    pub fn pace_mut(&mut self, scope: &ScopeId) -> Option<&mut Pace> {
        let minting = self.scopes.get_mut(scope)?.minting.as_mut();
        minting.map(|minting| &mut minting.pace)
    }

    /// Returns the runners that are registered in another scope than that of their pool, each with the
    /// scope if it is on record.
    pub fn elsewhere(&self) -> impl Iterator<Item = (&RunnerName, Option<&ScopeId>)> {
        self.iter().flat_map(|pool| {
            let others = pool.runners.values();
            let others = others.filter(|runner| !pool.serves(runner));
            others.filter_map(|runner| Some((runner.name()?, runner.scope())))
        })
    }

    /// Returns the desired state of a pool that is not configured any more.
    ///
    /// Its runners may be registered in any configured scope. If there are several, only a list that
    /// shows one of them tells which.
    pub(super) fn unconfigured(&self, pool: &PoolName) -> Spec {
        let mut configured = self.configured().map(|(scope, _)| scope);
        let first = configured.next().cloned();
        let only = first.filter(|_| configured.next().is_none());
        Spec::unconfigured(pool.clone(), only)
    }

    /// Returns the state of the scope in which the pool of a slot registers runners.
    pub(super) fn scope_of(&mut self, slot: &SlotId) -> Option<&mut ScopeState> {
        let scope = self.by_name.get(&slot.pool)?.spec.scope.as_ref()?;
        self.scopes.get_mut(scope)
    }

    /// Returns the mints of the scope in which the pool of a slot registers runners.
    pub(super) fn minting_of(&mut self, slot: &SlotId) -> Option<&mut Minting> {
        self.scope_of(slot)?.minting.as_mut()
    }

    /// Notes that a runner of this name ended. A list of its pool's scope may show it for a while. The
    /// scope of a pool that is not configured may be any.
    pub(super) fn add_ended(&mut self, name: &RunnerName, now: Timestamp) {
        let pool = self.by_name.get(&name.slot.pool);
        let scope = pool.and_then(|pool| pool.spec.scope.clone());
        for (id, state) in &mut self.scopes {
            let may_show = scope.as_ref().is_none_or(|scope| scope == id);
            if may_show && state.minting.is_some() {
                state.orphans.add_ended(name.clone(), now);
            }
        }
    }

    /// Returns true if a runner of this name ended, so that it is not the one in its slot now.
    pub(super) fn has_ended(&self, name: &RunnerName) -> bool {
        let mut scopes = self.scopes.values();
        scopes.any(|state| state.orphans.has_ended(name))
    }
}
