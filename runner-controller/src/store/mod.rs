//! What survives a restart, in one `SQLite` file: [`Records`].
//!
//! Truth is in systemd and at GitHub; this holds what neither knows. Losing the file loses
//! history, never a job: a file that cannot be read is set aside and a new one begun, and one whose
//! disk is full or read-only is read from a copy and tried again. One thread owns the connection
//! and does one call after the other.

mod backing;
mod rows;
mod schema;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::coop::unconstrained;

use crate::pool::{HostId, SlotId};
use crate::world::{Failure, Records, RunnerRecord, VerdictRecord};
use backing::{Access, Backing};

/// Calls that wait for the thread. A pool makes a few per life; beyond this callers wait.
const QUEUE: usize = 64;

/// How long another process of ours may hold the file (`cleanup` reads it, too).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Verdicts that are kept.
const HISTORY: i64 = 10_000;

/// Why a call on the records failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file or its directory cannot be made or opened.
    #[error("cannot open the records {}; check that the directory exists, has room and belongs to this user", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file was made by a newer version.
    #[error("the records {} have schema {found}, and this version knows up to {known}; install the newer runner-controller again, or move the file away (it holds history, no job depends on it)", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest one we know.
        known: i64,
    },
    /// `SQLite` refused: disk full, read-only, locked, damaged.
    #[error("cannot {operation} in the records")]
    Sqlite {
        /// What was tried, as a verb: `keep a life`.
        operation: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The file could not be opened when the daemon started, and not since.
    #[error("cannot {operation} in the records: {why}")]
    Away {
        /// What was tried.
        operation: &'static str,
        /// Why it could not be opened.
        why: String,
    },
    /// The thread is gone. It never ends by itself while the store lives.
    #[error("cannot {operation}: the records are closed")]
    Closed {
        /// What was tried.
        operation: &'static str,
    },
}

impl Failure for StoreError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(
                    ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::DiskFull
                        | ErrorCode::ReadOnly
                        | ErrorCode::CannotOpen
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::PermissionDenied
                )
            ),
            Self::Away { .. } => true,
            Self::Open { .. } | Self::NewerSchema { .. } | Self::Closed { .. } => false,
        }
    }
}

/// A call, carried out on the store's thread.
type Call = Box<dyn FnOnce(&mut Backing) + Send>;

/// [`Records`] in a `SQLite` file. Clones share it; the file is closed when the last one is gone and
/// what it was asked for is done.
#[derive(Debug, Clone)]
pub struct Store {
    /// Locked until a call is in the queue: of two that wait for room there, the channel would take
    /// the one that is polled first, and not the one that was there first.
    calls: Arc<Mutex<mpsc::Sender<Call>>>,
    host: HostId,
}

impl Store {
    /// Opens the file, or makes it (mode 0600) and its directory (0700). Blocks; for the start of
    /// the daemon, before anything waits. `host` is whose runner names are read back.
    ///
    /// The second value is a warning to show: the file was damaged and has been set aside, or it
    /// cannot be opened now. Then what is in it is read from a copy, writes fail, and it is tried
    /// again with them.
    ///
    /// # Errors
    /// A newer version made it.
    pub fn open(path: &Path, host: HostId) -> Result<(Self, Option<String>), StoreError> {
        let (backing, warning) = Backing::open(path)?;
        let (calls, mut queue) = mpsc::channel::<Call>(QUEUE);
        let mut backing = backing;
        std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || {
                while let Some(call) = queue.blocking_recv() {
                    call(&mut backing);
                }
            })
            .map_err(|source| StoreError::Open {
                path: path.to_owned(),
                source,
            })?;
        let calls = Arc::new(Mutex::new(calls));
        Ok((Self { calls, host }, warning))
    }

    /// Runs `work` on the thread, after every call that was begun before it.
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
        let call: Call = Box::new(move |backing| {
            let done = backing
                .connection(access, operation)
                .and_then(|connection| {
                    work(connection).map_err(|source| StoreError::Sqlite { operation, source })
                });
            // Nobody may wait for the answer any more; it is written all the same.
            let _ = answer.send(done);
        });
        let closed = || StoreError::Closed { operation };
        // Tokio would make a busy task's call wait before it has taken its place in the order.
        let queued = unconstrained(async { self.calls.lock().await.send(call).await });
        queued.await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

impl Records for Store {
    type Error = StoreError;

    async fn load(&self) -> Result<Vec<RunnerRecord>, StoreError> {
        let host = self.host.clone();
        self.call(Access::Read, "read the lives", move |connection| {
            rows::runners(connection, &host)
        })
        .await
    }

    async fn put(&self, runner: RunnerRecord) -> Result<(), StoreError> {
        self.call(Access::Write, "keep a life", move |connection| {
            rows::put(connection, &runner)
        })
        .await
    }

    async fn remove(&self, slot: SlotId) -> Result<(), StoreError> {
        self.call(Access::Write, "drop a life", move |connection| {
            rows::remove(connection, &slot)
        })
        .await
    }

    async fn close(&self, verdict: VerdictRecord) -> Result<(), StoreError> {
        self.call(Access::Write, "keep a verdict", move |connection| {
            let transaction = connection.transaction()?;
            rows::remove(&transaction, &verdict.slot)?;
            rows::add_verdict(&transaction, &verdict)?;
            rows::prune(&transaction, HISTORY)?;
            transaction.commit()
        })
        .await
    }

    async fn recent(&self, count: usize) -> Result<Vec<VerdictRecord>, StoreError> {
        self.call(Access::Read, "read the verdicts", move |connection| {
            rows::recent(connection, count)
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
        self.call(Access::Write, "keep a setting", move |connection| {
            rows::set_setting(connection, &key, value.as_deref())
        })
        .await
    }
}

#[cfg(test)]
mod tests;
