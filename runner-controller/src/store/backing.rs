//! Where the records are: in their file, or away from it for as long as its disk does not do.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tempfile::TempDir;

use super::{BUSY_TIMEOUT, StoreError, schema};
use crate::world::chain;

/// How often a file that is away is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(3);

/// What a call is going to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// The records as they can be reached.
pub(super) enum Backing {
    /// In their file.
    File(Connection),
    /// The file cannot be opened: its disk is full, read-only, without inodes, or not there.
    Away {
        path: PathBuf,
        why: String,
        /// What was in the file. A disk that cannot be written can often be read.
        copy: Option<Copy>,
        tried: Instant,
    },
}

/// The file as it was found, somewhere else.
pub(super) struct Copy {
    pub(super) connection: Connection,
    /// Goes with it, and after it.
    _dir: TempDir,
}

impl Backing {
    /// The second value is a warning to show.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<String>), StoreError> {
        let error = match open_file(path) {
            Ok((connection, warning)) => return Ok((Self::File(connection), warning)),
            Err(error @ StoreError::NewerSchema { .. }) => return Err(error),
            Err(error) => error,
        };
        let why = chain(&error);
        let copy = match Copy::of(path) {
            Ok(copy) => Some(copy),
            Err(error @ StoreError::NewerSchema { .. }) => return Err(error),
            Err(_) => None,
        };
        let warning = format!("the records are kept in memory until they can be written: {why}");
        let away = Self::Away {
            path: path.to_owned(),
            why,
            copy,
            tried: Instant::now(),
        };
        Ok((away, Some(warning)))
    }

    /// What a call is to use.
    pub(super) fn connection(
        &mut self,
        access: Access,
        operation: &'static str,
    ) -> Result<&mut Connection, StoreError> {
        self.come_back();
        match self {
            Self::File(connection) => Ok(connection),
            Self::Away {
                copy: Some(copy), ..
            } if access == Access::Read => Ok(&mut copy.connection),
            Self::Away { why, .. } => Err(StoreError::Away {
                operation,
                why: why.clone(),
            }),
        }
    }

    fn come_back(&mut self) {
        let Self::Away {
            path, why, tried, ..
        } = self
        else {
            return;
        };
        if tried.elapsed() < TRY_AGAIN {
            return;
        }
        match open_file(path) {
            Ok((connection, _)) => *self = Self::File(connection),
            Err(error) => {
                *why = chain(&error);
                *tried = Instant::now();
            }
        }
    }
}

impl Copy {
    /// The log comes along: it holds what was written last.
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

/// Opens the file; one that is damaged is set aside, with a warning to show, and a new one begun.
fn open_file(path: &Path) -> Result<(Connection, Option<String>), StoreError> {
    match try_open(path) {
        Err(error) if is_damage(&error) => {
            let aside = set_aside(path)?;
            let warning = format!(
                "the records {} were damaged ({}) and are now {}; history begins anew, running jobs are not affected",
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
        StoreError::Open { .. }
        | StoreError::NewerSchema { .. }
        | StoreError::Away { .. }
        | StoreError::Closed { .. } => false,
    }
}

fn reason(error: &StoreError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Renames the file, and what `SQLite` keeps beside it, to the first free `.corrupt-<n>`.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
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

/// What `SQLite` keeps beside its file.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
