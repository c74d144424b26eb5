//! What survives a restart, in one `SQLite` file: [`Records`].
//!
//! Truth is in systemd and at GitHub; this holds what neither knows. Losing the file loses
//! history, never a job: a file that cannot be read is set aside and a new one begun. One thread
//! owns the connection and does one call after the other.

mod rows;
mod schema;

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::coop::unconstrained;

use crate::pool::{HostId, SlotId};
use crate::world::{Failure, LifeRecord, Records, VerdictRecord};

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
                )
            ),
            Self::Open { .. } | Self::NewerSchema { .. } | Self::Closed { .. } => false,
        }
    }
}

/// A call, carried out on the store's thread.
type Call = Box<dyn FnOnce(&mut Connection) + Send>;

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
    /// The second value is a warning to show: the file was damaged and has been set aside.
    ///
    /// # Errors
    /// It cannot be made or opened, or a newer version made it.
    pub fn open(path: &Path, host: HostId) -> Result<(Self, Option<String>), StoreError> {
        let (connection, warning) = match try_open(path) {
            Err(error) if is_damage(&error) => {
                let aside = set_aside(path)?;
                let warning = format!(
                    "the records {} were damaged ({}) and are now {}; history begins anew, running jobs are not affected",
                    path.display(),
                    reason(&error),
                    aside.display()
                );
                tracing::error!("{warning}");
                (try_open(path)?, Some(warning))
            }
            result => (result?, None),
        };
        let (calls, mut queue) = mpsc::channel::<Call>(QUEUE);
        let mut connection = connection;
        std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || {
                while let Some(call) = queue.blocking_recv() {
                    call(&mut connection);
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
    async fn call<T, W>(&self, operation: &'static str, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let call: Call = Box::new(move |connection| {
            // Nobody may wait for the answer any more; it is written all the same.
            let _ = answer.send(work(connection));
        });
        let closed = || StoreError::Closed { operation };
        // Tokio would make a busy task's call wait before it has taken its place in the order.
        let queued = unconstrained(async { self.calls.lock().await.send(call).await });
        queued.await.map_err(|_| closed())?;
        let result = answered.await.map_err(|_| closed())?;
        result.map_err(|source| StoreError::Sqlite { operation, source })
    }
}

impl Records for Store {
    type Error = StoreError;

    async fn load(&self) -> Result<Vec<LifeRecord>, StoreError> {
        let host = self.host.clone();
        self.call("read the lives", move |connection| {
            rows::lives(connection, &host)
        })
        .await
    }

    async fn put(&self, life: LifeRecord) -> Result<(), StoreError> {
        self.call("keep a life", move |connection| {
            rows::put(connection, &life)
        })
        .await
    }

    async fn remove(&self, slot: SlotId) -> Result<(), StoreError> {
        self.call("drop a life", move |connection| {
            rows::remove(connection, &slot)
        })
        .await
    }

    async fn close(&self, verdict: VerdictRecord) -> Result<(), StoreError> {
        self.call("keep a verdict", move |connection| {
            let transaction = connection.transaction()?;
            rows::remove(&transaction, &verdict.slot)?;
            rows::add_verdict(&transaction, &verdict)?;
            rows::prune(&transaction, HISTORY)?;
            transaction.commit()
        })
        .await
    }

    async fn recent(&self, count: usize) -> Result<Vec<VerdictRecord>, StoreError> {
        self.call("read the verdicts", move |connection| {
            rows::recent(connection, count)
        })
        .await
    }

    async fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        let key = key.to_owned();
        self.call("read a setting", move |connection| {
            rows::setting(connection, &key)
        })
        .await
    }

    async fn set_setting(&self, key: &str, value: Option<String>) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.call("keep a setting", move |connection| {
            rows::set_setting(connection, &key, value.as_deref())
        })
        .await
    }
}

fn try_open(path: &Path) -> Result<Connection, StoreError> {
    make_private(path).map_err(|source| StoreError::Open {
        path: path.to_owned(),
        source,
    })?;
    let connect = || -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // With WAL a crash of ours loses nothing and a power cut at most the last moments, which
        // systemd and GitHub can tell again.
        connection.pragma_update(None, "synchronous", "normal")?;
        Ok(connection)
    };
    let mut connection = connect().map_err(|source| StoreError::Sqlite {
        operation: "open a connection",
        source,
    })?;
    schema::prepare(&mut connection, path)?;
    Ok(connection)
}

/// Makes the file ours alone before `SQLite` writes to it; its `-wal` and `-shm` take over the mode.
fn make_private(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

/// True if the file itself is the trouble, and not the disk, the rights or another process.
fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Sqlite { source, .. } => matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ),
        StoreError::Open { .. } | StoreError::NewerSchema { .. } | StoreError::Closed { .. } => {
            false
        }
    }
}

fn reason(error: &StoreError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Renames the file, and what `SQLite` keeps beside it, to the first free `.corrupt-<n>`.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let beside = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = (1..=1_000)
        .map(|n| beside(path, &format!(".corrupt-{n}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| beside(path, ".corrupt-last"));
    // The file comes last: a log without its file is harmless, a new file beside an old log is not.
    for suffix in ["-wal", "-shm", ""] {
        match std::fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::Open {
                    path: path.to_owned(),
                    source,
                });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests;
