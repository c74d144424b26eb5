//! Errors of the records.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::world::Failure;

/// Error of a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The file or its directory cannot be opened or made.
    #[error("cannot open the records {}: check that the directory exists, has space and belongs to this user", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A newer version made the file.
    #[error("cannot read the records {}: their schema {found} is newer than {known}; install the newer runner-controller again, or move the file away (it holds history, and no job depends on it)", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Schema of the file.
        found: i64,
        /// Newest schema that this version knows.
        known: i64,
    },
    /// `SQLite` failed: the disk is full or read-only, or the file is locked or damaged.
    #[error("cannot {operation} in the records")]
    Sqlite {
        /// The operation, as a verb: `write a runner`.
        operation: &'static str,
        /// Cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The file could not be opened when the daemon started, nor since.
    #[error("cannot {operation} in the records: {reason}")]
    Unavailable {
        /// The operation, as a verb.
        operation: &'static str,
        /// Reason, in words.
        reason: String,
    },
    /// The daemon stops and has closed the file.
    #[error("cannot {operation}: the records are closed")]
    Closed {
        /// The operation, as a verb.
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
            Self::Unavailable { .. } => true,
            Self::Open { .. } | Self::NewerSchema { .. } | Self::Closed { .. } => false,
        }
    }
}
