//! The file of the records, and a copy to read while the file cannot be opened.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tempfile::TempDir;

use super::error::StoreError;
use super::schema;
use crate::world::chain;

/// Timeout for another process that holds the file: `cleanup` reads it, too.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between attempts to open the file.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);

/// Kind of access that a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// The file of the records.
pub(super) enum RecordsFile {
    /// The file is open.
    Open(Connection),
    /// The file cannot be opened: its disk is full, read-only, without inodes, or not there.
    Unavailable {
        path: PathBuf,
        reason: String,
        /// Copy of the file. A disk that cannot be written can often be read.
        copy: Option<Snapshot>,
        tried_at: Instant,
    },
    /// The file was closed, because the daemon stops.
    Closed,
}

/// A copy of the file in a temporary directory.
pub(super) struct Snapshot {
    pub(super) connection: Connection,
    /// Removes the directory after the connection is closed.
    _dir: TempDir,
}

impl RecordsFile {
    /// Opens the file. The second value is a warning.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<String>), StoreError> {
        let error = match open_file(path) {
            Ok((connection, warning)) => return Ok((Self::Open(connection), warning)),
            Err(error @ StoreError::NewerSchema { .. }) => return Err(error),
            Err(error) => error,
        };
        let reason = chain(&error);
        let copy = match Snapshot::of(path) {
            Ok(copy) => Some(copy),
            Err(error @ StoreError::NewerSchema { .. }) => return Err(error),
            Err(_) => None,
        };
        let warning = format!("cannot open the records, so they are kept in memory: {reason}");
        let away = Self::Unavailable {
            path: path.to_owned(),
            reason,
            copy,
            tried_at: Instant::now(),
        };
        Ok((away, Some(warning)))
    }

    /// Returns the connection for a call.
    pub(super) fn connection(
        &mut self,
        access: Access,
        operation: &'static str,
    ) -> Result<&mut Connection, StoreError> {
        self.reopen();
        match self {
            Self::Open(connection) => Ok(connection),
            Self::Unavailable {
                copy: Some(copy), ..
            } if access == Access::Read => Ok(&mut copy.connection),
            Self::Unavailable { reason, .. } => Err(StoreError::Unavailable {
                operation,
                reason: reason.clone(),
            }),
            Self::Closed => Err(StoreError::Closed { operation }),
        }
    }

    fn reopen(&mut self) {
        let Self::Unavailable {
            path,
            reason,
            tried_at,
            ..
        } = self
        else {
            return;
        };
        if tried_at.elapsed() < RETRY_INTERVAL {
            return;
        }
        match open_file(path) {
            Ok((connection, _)) => *self = Self::Open(connection),
            Err(error) => {
                *reason = chain(&error);
                *tried_at = Instant::now();
            }
        }
    }
}

impl Snapshot {
    /// Copies the file and its write-ahead log, which holds the last writes.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        let dir = tempfile::tempdir().map_err(failed)?;
        let to = dir.path().join("records");
        fs::copy(path, &to).map_err(failed)?;
        match fs::copy(beside(path, "-wal"), beside(&to, "-wal")) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
            Ok(_) | Err(_) => {}
        }
        let connection = try_open(&to)?;
        Ok(Self {
            connection,
            _dir: dir,
        })
    }
}

/// Opens the file. A damaged file is renamed, with a warning, and a new one is made.
fn open_file(path: &Path) -> Result<(Connection, Option<String>), StoreError> {
    match try_open(path) {
        Err(error) if is_damage(&error) => {
            let aside = set_aside(path)?;
            let warning = format!(
                "renamed the damaged records {} ({}) to {}: history starts anew, and no job is affected",
                path.display(),
                reason(&error),
                aside.display()
            );
            tracing::error!("{warning}");
            Ok((try_open(path)?, Some(warning)))
        }
        result => Ok((result?, None)),
    }
}

pub(super) fn try_open(path: &Path) -> Result<Connection, StoreError> {
    make_private(path).map_err(|source| StoreError::Open {
        path: path.to_owned(),
        source,
    })?;
    let connect = || -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // With WAL a crash of the daemon loses nothing. A power cut loses at most the last moments, which
        // systemd and GitHub know, too, unless they are written durably.
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

/// Carries out `work` in a transaction that outlasts a power cut once it is committed: GitHub forgets a message that is
/// deleted and a delivery that is answered. It costs one flush of the disk.
pub(super) fn durably<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.pragma_update(None, "synchronous", "full")?;
    let done = committed(connection, work);
    connection.pragma_update(None, "synchronous", "normal")?;
    done
}

fn committed<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction()?;
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

/// Makes the file private before `SQLite` writes to it. Its `-wal` and `-shm` get the same mode.
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

/// Returns true if the file itself is damaged, and not the disk, the permissions or another process the
/// cause.
fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Sqlite { source, .. } => matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ),
        StoreError::Open { .. }
        | StoreError::NewerSchema { .. }
        | StoreError::Unavailable { .. }
        | StoreError::Closed { .. } => false,
    }
}

fn reason(error: &StoreError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Renames the file and its companions to the first free `.corrupt-<n>`.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let aside = (1..=1_000)
        .map(|n| beside(path, &format!(".corrupt-{n}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| beside(path, ".corrupt-last"));
    // The file is renamed last, because a log without its file is harmless, and a new file beside an old
    // log is not.
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

/// Returns the path of a companion that `SQLite` keeps beside its file.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
