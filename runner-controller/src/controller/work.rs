//! Steps as tasks: each calls the outside once and reports back.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::Controller;
use crate::pool::{
    Deleted, Ending, FailureKind, ListedRunner, MintOutcome, RunnerId, RunnerName, SlotId,
    Timestamp, UnitObservation,
};
use crate::world::{
    Failure, Handshake, Machines, MintRequest, Records, Registry, RegistryError, RegistryErrorKind,
    RunnerRecord, VerdictRecord, chain,
};

/// What came of a step.
pub(super) enum Done {
    Started {
        slot: SlotId,
        result: Result<(), String>,
    },
    Minted {
        slot: SlotId,
        name: RunnerName,
        outcome: MintOutcome,
        error: Option<RegistryError>,
    },
    Deregistered {
        slot: SlotId,
        id: RunnerId,
        result: Result<Deleted, RegistryError>,
    },
    EndAsked {
        slot: SlotId,
        result: Result<(), String>,
    },
    Deleted {
        id: RunnerId,
        result: Result<Deleted, RegistryError>,
    },
    Listed {
        asked: Timestamp,
        result: Result<Vec<ListedRunner>, RegistryError>,
    },
    Observed {
        began: Timestamp,
        result: Result<Vec<UnitObservation>, String>,
    },
    Written(Result<(), Unwritten>),
}

/// A write that failed.
pub(super) struct Unwritten {
    write: Write,
    /// Why, for people.
    pub(super) reason: String,
    again: bool,
}

/// Something to write down, in order.
#[derive(Clone)]
pub(super) enum Write {
    Put(Box<RunnerRecord>),
    Remove(SlotId),
    Close(Box<VerdictRecord>),
    Setting(&'static str, Option<String>),
}

impl Write {
    /// The slot whose record it changes.
    fn slot(&self) -> Option<&SlotId> {
        match self {
            Self::Put(record) => Some(&record.slot),
            Self::Remove(slot) => Some(slot),
            Self::Close(verdict) => Some(&verdict.slot),
            Self::Setting(..) => None,
        }
    }
}

/// How many writes may wait. Beyond it the oldest are dropped: a disk that does not write must not
/// fill the memory. One life needs two of them, its verdict and what its slot holds now.
const UNWRITTEN_MAX: usize = 4096;

/// Each cause has a breaker of its own: what mends one does not mend another.
fn failure(kind: RegistryErrorKind) -> FailureKind {
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

/// The wait after a write that failed.
const WRITE_AGAIN: Duration = Duration::from_secs(2);

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    pub(super) fn spawn_start(&mut self, slot: &SlotId) {
        let (machines, handshake) = (
            Arc::clone(&self.environment.machines),
            Arc::clone(&self.environment.handshake),
        );
        let slot = slot.clone();
        self.running.spawn(async move {
            let result = match handshake.prepare(&slot).await {
                Ok(()) => machines.start(&slot).await.map_err(|error| chain(&error)),
                Err(error) => Err(chain(&error)),
            };
            Done::Started { slot, result }
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
        };
        let (registry, handshake) = (
            Arc::clone(&self.environment.registry),
            Arc::clone(&self.environment.handshake),
        );
        let slot = slot.clone();
        self.running.spawn(async move {
            let minted = match registry.mint(&request).await {
                Ok(minted) => minted,
                Err(error) => {
                    let outcome = MintOutcome::Failed { failure: failure(error.kind), reason: error.to_string(), retry_after: error.retry_after };
                    return Done::Minted { slot, name, outcome, error: Some(error) };
                }
            };
            let outcome = match handshake.answer(&slot, minted.config).await {
                Ok(()) => {
                    debug!(pool = %slot.pool, slot = %slot, runner = %name, runner_id = %minted.id, "{slot}: a config was delivered");
                    MintOutcome::Delivered { id: minted.id }
                }
                Err(error) => {
                    warn!(pool = %slot.pool, slot = %slot, runner = %name, "{slot}: the config could not be delivered: {}", chain(&error));
                    MintOutcome::Undelivered { id: minted.id }
                }
            };
            Done::Minted { slot, name, outcome, error: None }
        });
    }

    pub(super) fn spawn_deregister(&mut self, slot: &SlotId, id: RunnerId) {
        let (registry, slot) = (Arc::clone(&self.environment.registry), slot.clone());
        self.running.spawn(async move {
            Done::Deregistered {
                result: registry.delete(id).await,
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
            Done::EndAsked {
                slot,
                result: result.map_err(|error| chain(&error)),
            }
        });
    }

    pub(super) fn spawn_delete(&mut self, id: RunnerId) {
        let registry = Arc::clone(&self.environment.registry);
        self.running.spawn(async move {
            Done::Deleted {
                id,
                result: registry.delete(id).await,
            }
        });
    }

    pub(super) fn spawn_list(&mut self) {
        let (registry, asked) = (
            Arc::clone(&self.environment.registry),
            (self.environment.now)(),
        );
        self.running.spawn(async move {
            Done::Listed {
                asked,
                result: registry.list().await,
            }
        });
    }

    pub(super) fn spawn_reconcile(&mut self) {
        let (machines, began) = (
            Arc::clone(&self.environment.machines),
            (self.environment.now)(),
        );
        self.running.spawn(async move {
            Done::Observed {
                began,
                result: machines.observe().await.map_err(|error| chain(&error)),
            }
        });
    }

    /// Queues what is known of a slot to be written down.
    pub(super) fn record(&mut self, id: &SlotId) {
        let Some(runner) = self
            .pools
            .get(&id.pool)
            .and_then(|pool| pool.runners.get(&id.slot))
        else {
            self.queue(Write::Remove(id.clone()));
            return;
        };
        let record = RunnerRecord::of(runner, id.clone(), self.environment.boot_id.clone());
        self.queue(Write::Put(Box::new(record)));
    }

    /// Only the newest word on a slot counts, unless a verdict stands between the two.
    fn queue(&mut self, write: Write) {
        let last = self
            .unwritten
            .iter()
            .rposition(|old| old.slot() == write.slot());
        match last.and_then(|at| Some((at, self.unwritten.get(at)?))) {
            Some((at, Write::Put(_) | Write::Remove(_))) => {
                self.unwritten.remove(at);
            }
            Some((_, Write::Close(_) | Write::Setting(..))) | None => {}
        }
        self.unwritten.push_back(write);
    }

    /// Starts the next write, if none is under way: they keep their order.
    pub(super) fn write_next(&mut self) {
        while self.unwritten.len() > UNWRITTEN_MAX {
            self.unwritten.pop_front();
        }
        if self.recording || (self.environment.now)() < self.write_at {
            return;
        }
        let Some(write) = self.unwritten.pop_front() else {
            return;
        };
        self.recording = true;
        let records = Arc::clone(&self.environment.records);
        self.running.spawn(async move {
            let result = match write.clone() {
                Write::Put(record) => records.put(*record).await,
                Write::Remove(slot) => records.remove(slot).await,
                Write::Close(verdict) => records.close(*verdict).await,
                Write::Setting(key, value) => records.set_setting(key, value).await,
            };
            Done::Written(result.map_err(|error| Unwritten {
                write,
                reason: chain(&error),
                again: error.is_transient(),
            }))
        });
    }

    /// A write ended. One that failed for a reason that may pass is repeated before any other.
    pub(super) fn written(&mut self, result: Result<(), Unwritten>) {
        self.recording = false;
        let Err(failed) = result else {
            if self.shown.records_error.take().is_some() {
                info!("records are written again");
            }
            return;
        };
        let reason = failed.reason;
        if self.shown.records_error.as_ref() != Some(&reason) {
            let kept = if failed.again {
                "they are kept in memory until they can be"
            } else {
                "some history is lost, no job is"
            };
            warn!(reason, "records cannot be written, and {kept}: {reason}");
        }
        self.shown.records_error = Some(reason);
        if failed.again {
            self.unwritten.push_front(failed.write);
            self.write_at = (self.environment.now)() + WRITE_AGAIN;
        }
    }
}
