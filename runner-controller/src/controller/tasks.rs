//! The tasks: each makes one call to the world and reports the outcome.

use std::sync::Arc;

use tracing::{debug, warn};

use super::outcome::{ListKind, Outcome};
use super::{Client, Controller};
use crate::pool::{
    Ending, FailureKind, MintOutcome, RunnerId, RunnerName, ScopeId, SlotId, Timestamp,
};
use crate::world::{
    Handshake, Machines, MintRequest, Records, Registry, RegistryError, RegistryErrorKind, chain,
};

/// Returns the kind of failure that delays mints. A fix for one kind fixes no other.
fn failure_kind(kind: RegistryErrorKind) -> FailureKind {
    match kind {
        RegistryErrorKind::Unauthorized => FailureKind::Unauthorized,
        RegistryErrorKind::Forbidden => FailureKind::Forbidden,
        RegistryErrorKind::NotFound => FailureKind::NotFound,
        RegistryErrorKind::Invalid => FailureKind::Invalid,
        RegistryErrorKind::Limited => FailureKind::Limited,
        RegistryErrorKind::NameTaken
        | RegistryErrorKind::Server
        | RegistryErrorKind::Unreachable => FailureKind::Mint,
    }
}

fn failed_mint(error: &RegistryError) -> MintOutcome {
    MintOutcome::Failed {
        failure: failure_kind(error.kind),
        reason: error.to_string(),
        retry_after: error.retry_after,
        is_ambiguous: error.is_ambiguous(),
    }
}

fn delivery<E: std::error::Error>(
    slot: &SlotId,
    name: &RunnerName,
    id: RunnerId,
    delivered: Result<(), E>,
) -> MintOutcome {
    match delivered {
        Ok(()) => {
            debug!(
                pool = %slot.pool, slot = %slot, runner = %name, runner_id = %id,
                "{slot}: delivered the JIT config of {name}"
            );
            MintOutcome::Delivered { id }
        }
        Err(error) => {
            warn!(
                pool = %slot.pool, slot = %slot, runner = %name, runner_id = %id,
                "{slot}: cannot deliver the JIT config of {name} with id {id}: {}", chain(&error)
            );
            MintOutcome::Undelivered { id }
        }
    }
}

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    pub(super) fn spawn_start(&mut self, slot: &SlotId) {
        let (machines, handshake) = (
            Arc::clone(&self.environment.machines),
            Arc::clone(&self.environment.handshake),
        );
        let (recorded, slot) = (self.writes.written(slot), slot.clone());
        self.running.spawn(async move {
            // The record comes first: if this daemon is killed now and root cannot record the end, nothing
            // else tells the next daemon of the runner. The receiver only ends.
            let _ = recorded.await;
            let result = match handshake.prepare(&slot).await {
                Ok(()) => machines.start(&slot).await.map_err(|error| chain(&error)),
                Err(error) => Err(chain(&error)),
            };
            Outcome::Started { slot, result }
        });
    }

    pub(super) fn spawn_mint(&mut self, slot: &SlotId, name: RunnerName) {
        let Some(pool) = self.config.pool(&slot.pool) else {
            return;
        };
        let request = MintRequest {
            name: name.clone(),
            labels: pool.labels.clone(),
            runner_group: pool.runner_group.clone(),
            work_folder: pool.work_folder.clone(),
            scale_set: pool.scale_set.clone(),
        };
        let scope = pool.scope.clone();
        let Some(registry) = self.registry(&scope) else {
            return;
        };
        let handshake = Arc::clone(&self.environment.handshake);
        let slot = slot.clone();
        self.running.spawn(async move {
            let (outcome, error) = match registry.mint(&request).await {
                Ok(minted) => {
                    let delivered = handshake.answer(&slot, minted.config).await;
                    (delivery(&slot, &name, minted.id, delivered), None)
                }
                Err(error) => (failed_mint(&error), Some(error)),
            };
            Outcome::Minted {
                scope,
                slot,
                name,
                outcome,
                error,
            }
        });
    }

    pub(super) fn spawn_deregister(&mut self, slot: &SlotId, id: RunnerId) {
        let (Some((scope, registry)), slot) = (self.registry_of(slot), slot.clone()) else {
            return;
        };
        self.running.spawn(async move {
            Outcome::Deregistered {
                scope,
                result: registry.delete(id).await,
                slot,
                id,
            }
        });
    }

    pub(super) fn spawn_find(&mut self, slot: &SlotId, id: RunnerId) {
        let (Some((scope, registry)), slot) = (self.registry_of(slot), slot.clone()) else {
            return;
        };
        self.running.spawn(async move {
            Outcome::Found {
                scope,
                result: registry.find(id).await,
                slot,
                id,
            }
        });
    }

    pub(super) fn spawn_end(&mut self, slot: &SlotId, how: Ending) {
        let (machines, slot) = (Arc::clone(&self.environment.machines), slot.clone());
        self.running.spawn(async move {
            let result = match how {
                Ending::Stop => machines.stop(&slot).await,
                Ending::Kill => machines.kill(&slot).await,
            };
            Outcome::EndRequested {
                slot,
                result: result.map_err(|error| chain(&error)),
            }
        });
    }

    pub(super) fn spawn_delete(&mut self, scope: ScopeId, id: RunnerId) {
        let Some(registry) = self.registry(&scope) else {
            return;
        };
        self.running.spawn(async move {
            Outcome::Deleted {
                scope,
                id,
                result: registry.delete(id).await,
            }
        });
    }

    /// Requests the list of each scope, unless a request for it is under way.
    pub(super) fn spawn_lists(&mut self) {
        let configured = self.environment.registries.keys();
        let scopes = configured.chain(self.environment.former.keys());
        for scope in scopes.cloned().collect::<Vec<_>>() {
            if let Some(registry) = self.registry(&scope) {
                self.spawn_list(scope, registry, ListKind::Full);
            }
        }
    }

    /// Requests the list of a scope between two reconciles, unless a request is under way.
    pub(super) fn spawn_early_list(&mut self, scope: ScopeId) {
        if self.listing.contains_key(&scope) {
            return;
        }
        if let Some(registry) = self.registry(&scope) {
            self.spawn_list(scope, registry, ListKind::Early);
        }
    }

    /// Requests a list. One that is under way becomes a list of this kind.
    fn spawn_list(&mut self, scope: ScopeId, registry: Arc<R>, kind: ListKind) {
        let requested_at = (self.environment.now)();
        self.pools.list_requested(&scope, requested_at);
        if self.listing.insert(scope.clone(), kind).is_some() {
            return;
        }
        self.running.spawn(async move {
            Outcome::Listed {
                scope,
                requested_at,
                result: registry.list().await,
            }
        });
    }

    /// Looks up the runner groups of each scope that is due.
    pub(super) fn spawn_group_looks(&mut self) {
        let now = (self.environment.now)();
        for (scope, client) in &self.environment.registries {
            if !self.groups.begin(&self.config, scope, now) {
                continue;
            }
            let (scope, registry) = (scope.clone(), Arc::clone(&client.registry));
            self.running.spawn(async move {
                Outcome::GroupsListed {
                    scope,
                    result: registry.groups().await,
                }
            });
        }
    }

    /// Asks GitHub about each version of a runner that is due.
    pub(super) fn spawn_version_questions(&mut self, now: Timestamp) {
        let due = (self.versions).begin(&self.config, self.pools.iter(), now);
        for (scope, version) in due {
            let Some(client) = self.environment.registries.get(&scope) else {
                continue;
            };
            let registry = Arc::clone(&client.registry);
            self.running.spawn(async move {
                Outcome::VersionAnswered {
                    result: registry.version_end(version).await,
                    scope,
                    version,
                }
            });
        }
    }

    /// Returns the scope in which a slot's runner is registered, and its registry.
    fn registry_of(&self, slot: &SlotId) -> Option<(ScopeId, Arc<R>)> {
        let scope = self.pools.runner(slot)?.scope()?;
        Some((scope.clone(), self.registry(scope)?))
    }

    /// Returns the registry of a scope. No call leaves for a scope without one.
    pub(super) fn registry(&self, scope: &ScopeId) -> Option<Arc<R>> {
        let client = self.client(scope)?;
        Some(Arc::clone(&client.registry))
    }

    /// Returns the client of a scope, configured or former.
    pub(super) fn client(&self, scope: &ScopeId) -> Option<&Client<R>> {
        let configured = self.environment.registries.get(scope);
        configured.or_else(|| self.environment.former.get(scope)?.as_ref().ok())
    }

    /// Observes all units, unless an observation is under way.
    pub(super) fn spawn_observe(&mut self) {
        if std::mem::replace(&mut self.is_observing, true) {
            return;
        }
        let machines = Arc::clone(&self.environment.machines);
        let began = (self.environment.now)();
        self.running.spawn(async move {
            Outcome::Observed {
                began,
                result: machines.observe().await.map_err(|error| chain(&error)),
            }
        });
    }

    /// Starts the next write, unless one is under way.
    pub(super) fn begin_write(&mut self) {
        let Some(write) = self.writes.begin((self.environment.now)()) else {
            return;
        };
        let records = Arc::clone(&self.environment.records);
        self.running
            .spawn(async move { Outcome::Written(write.carry_out(records.as_ref()).await) });
    }
}
