//! Records in one `SQLite` file: [`Records`].
//!
//! The truth is in systemd and at GitHub, and this file holds what neither knows. Losing the file loses
//! history and no job. A damaged file is renamed and a new one is made. A file whose disk is full or
//! read-only is read from a copy, and writes are retried. One thread owns the connection and carries out
//! one call after the other.

mod deliveries;
mod error;
mod file;
mod rows;
mod schema;
mod verdicts;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::coop::unconstrained;

use crate::config::HistoryConfig;
use crate::pool::{HostId, KnownJob, RunnerId, ScopeId, SlotId};
use crate::slot_records;
use crate::status::{HistoryPage, HistoryQuery};
use crate::world::{
    Delivered, Inbox, Invocation, JobRecords, Records, RunnerRecord, StrayRecord, VerdictRecord,
};
use file::{Access, RecordsFile};

pub(crate) use error::StoreError;

/// Number of calls that may wait for the thread. A runner makes a few. Further callers wait.
const MAX_CALLS: usize = 64;

/// Number of verdicts after which old ones are removed, which takes some milliseconds.
const PRUNE_INTERVAL: i64 = 100;

/// A call for the thread.
type Call = Box<dyn FnOnce(&mut RecordsFile) + Send>;

/// [`Records`] in a `SQLite` file.
///
/// Clones share the file. It is closed by [`Store::close_file`], or after the last clone is dropped and its
/// calls are done.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    /// Locked until a call is in the queue. Of two calls that wait for room, the channel would take the
    /// one that is polled first, and not the one that came first.
    calls: Arc<Mutex<mpsc::Sender<Call>>>,
    host: HostId,
    keep: HistoryConfig,
}

impl Store {
    /// Opens the file, or makes it (mode 0600) and its directory (0700). Names of runners are read for
    /// `host`, and verdicts are kept as `keep` says. Blocks, so it belongs into the start of the daemon.
    ///
    /// The second value is a warning: the file was damaged and has been renamed, or it cannot be opened
    /// now. An unopened file is read from a copy, and each write tries to open it again.
    ///
    /// # Errors
    /// Fails if a newer version made the file, or if the thread cannot start.
    pub(crate) fn open(
        path: &Path,
        host: HostId,
        keep: HistoryConfig,
    ) -> Result<(Self, Option<String>), StoreError> {
        let (file, warning) = RecordsFile::open(path)?;
        let (calls, mut queue) = mpsc::channel::<Call>(MAX_CALLS);
        let mut file = file;
        std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || {
                while let Some(call) = queue.blocking_recv() {
                    call(&mut file);
                }
            })
            .map_err(|source| StoreError::Open {
                path: path.to_owned(),
                source,
            })?;
        let calls = Arc::new(Mutex::new(calls));
        Ok((Self { calls, host, keep }, warning))
    }

    /// Closes the file after the calls that began before. Later calls fail. A process that ends while its
    /// thread still writes would leave a write-ahead log for the next daemon.
    pub(crate) async fn close_file(&self) {
        let (done, closed) = oneshot::channel::<()>();
        let call: Call = Box::new(move |file| {
            *file = RecordsFile::Closed;
            drop(done);
        });
        if self.calls.lock().await.send(call).await.is_ok() {
            let _ = closed.await;
        }
    }

    /// Returns the runners that ended for which a question asks.
    pub(crate) async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, StoreError> {
        self.call(Access::Read, "read the history", move |connection| {
            verdicts::history(connection, &query)
        })
        .await
    }

    /// Runs `work` on the thread, after every call that began before it.
    async fn call<T, W>(
        &self,
        access: Access,
        operation: &'static str,
        work: W,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let call: Call = Box::new(move |file| {
            let done = file.connection(access, operation).and_then(|connection| {
                work(connection).map_err(|source| StoreError::Sqlite { operation, source })
            });
            // A cancelled call is carried out, too.
            let _ = answer.send(done);
        });
        let closed = || StoreError::Closed { operation };
        // Otherwise Tokio could suspend the call of a busy task before it has its place in the order.
        let queued = unconstrained(async { self.calls.lock().await.send(call).await });
        queued.await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

impl Store {
    /// Returns every job on record. A record that cannot be read is left out, with a warning in the journal.
    pub(crate) async fn jobs(&self) -> Result<Vec<KnownJob>, StoreError> {
        self.call(Access::Read, "read the jobs", |connection| {
            deliveries::jobs(connection)
        })
        .await
    }
}

impl Inbox for Store {
    type Error = StoreError;

    async fn deliver(
        &self,
        delivery: String,
        job: KnownJob,
        unix_ms: u64,
    ) -> Result<Delivered, StoreError> {
        self.call(Access::Write, "write a delivery", move |connection| {
            file::durably(connection, |transaction| {
                let delivered = deliveries::deliver(transaction, &delivery, job, unix_ms)?;
                deliveries::prune(transaction, unix_ms)?;
                Ok(delivered)
            })
        })
        .await
    }

    async fn on_record(
        &self,
        deliveries: BTreeSet<String>,
    ) -> Result<BTreeSet<String>, StoreError> {
        self.call(Access::Read, "look for deliveries", move |connection| {
            deliveries::on_record(connection, deliveries)
        })
        .await
    }
}

impl JobRecords for Store {
    type Error = StoreError;

    async fn live_jobs(&self, scope: &ScopeId) -> Result<Vec<KnownJob>, StoreError> {
        let scope = scope.clone();
        self.call(Access::Read, "read the jobs", move |connection| {
            deliveries::live_jobs(connection, &scope)
        })
        .await
    }

    async fn merge(&self, job: KnownJob) -> Result<Option<KnownJob>, StoreError> {
        self.call(Access::Write, "write a job", |connection| {
            file::durably(connection, |transaction| {
                deliveries::merge(transaction, job)
            })
        })
        .await
    }
}

impl Records for Store {
    type Error = StoreError;

    async fn load(&self) -> Result<Vec<RunnerRecord>, StoreError> {
        let host = self.host.clone();
        self.call(Access::Read, "read the runners", move |connection| {
            rows::runners(connection, &host)
        })
        .await
    }

    async fn put(&self, runner: RunnerRecord) -> Result<(), StoreError> {
        self.call(Access::Write, "write a runner", move |connection| {
            rows::put(connection, &runner)
        })
        .await
    }

    async fn remove(&self, slot: SlotId) -> Result<(), StoreError> {
        self.call(Access::Write, "remove a runner", move |connection| {
            rows::remove(connection, &slot)
        })
        .await
    }

    async fn close(&self, verdict: VerdictRecord) -> Result<(), StoreError> {
        let keep = self.keep;
        self.call(Access::Write, "write a verdict", move |connection| {
            let transaction = connection.transaction()?;
            rows::remove(&transaction, &verdict.slot)?;
            let newest = verdicts::add(&transaction, &verdict)?;
            if newest % PRUNE_INTERVAL == 0 {
                // A start that root has on record and that has no verdict would be judged again.
                let now = verdict.ended_unix_ms;
                verdicts::prune(&transaction, &keep, slot_records::KEPT, now)?;
            }
            transaction.commit()
        })
        .await
    }

    async fn strays(&self) -> Result<Vec<StrayRecord>, StoreError> {
        let host = self.host.clone();
        self.call(Access::Read, "read the strays", move |connection| {
            rows::strays(connection, &host)
        })
        .await
    }

    async fn put_stray(&self, stray: StrayRecord) -> Result<(), StoreError> {
        self.call(Access::Write, "write a stray", move |connection| {
            rows::put_stray(connection, &stray)
        })
        .await
    }

    async fn remove_stray(&self, scope: ScopeId, id: RunnerId) -> Result<(), StoreError> {
        self.call(Access::Write, "remove a stray", move |connection| {
            rows::remove_stray(connection, &scope, id)
        })
        .await
    }

    async fn recent(&self, count: usize) -> Result<Vec<VerdictRecord>, StoreError> {
        self.call(Access::Read, "read the verdicts", move |connection| {
            verdicts::recent(connection, count)
        })
        .await
    }

    async fn judged(
        &self,
        starts: BTreeSet<Invocation>,
    ) -> Result<BTreeSet<Invocation>, StoreError> {
        self.call(Access::Read, "look for verdicts", move |connection| {
            verdicts::judged(connection, starts)
        })
        .await
    }

    async fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        let key = key.to_owned();
        self.call(Access::Read, "read a setting", move |connection| {
            rows::setting(connection, &key)
        })
        .await
    }

    async fn set_setting(&self, key: &str, value: Option<String>) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.call(Access::Write, "write a setting", move |connection| {
            rows::set_setting(connection, &key, value.as_deref())
        })
        .await
    }
}

#[cfg(test)]
mod tests;
