//! The tables, and their version in a file.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, ffi};

use super::error::StoreError;

/// Statements that lead from each schema to the next. `user_version` is the number of statements that a
/// file has seen. A published statement is never changed, only followed by others.
pub(super) const STEPS: &[&str] = &[
    "
    CREATE TABLE lives (
        slot TEXT PRIMARY KEY,
        boot_id TEXT NOT NULL,
        invocation TEXT,
        phase TEXT NOT NULL,
        since_ms INTEGER NOT NULL,
        born_ms INTEGER NOT NULL,
        runner_name TEXT,
        runner_id INTEGER,
        job_repository TEXT,
        job_run_id TEXT,
        job_name TEXT,
        job_workflow TEXT,
        job_since_ms INTEGER
    ) STRICT;
    CREATE TABLE verdicts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        slot TEXT NOT NULL,
        verdict TEXT NOT NULL,
        runner TEXT,
        runner_id INTEGER,
        job_repository TEXT,
        job_run_id TEXT,
        job_name TEXT,
        job_workflow TEXT,
        born_unix_ms INTEGER NOT NULL,
        ended_unix_ms INTEGER NOT NULL,
        job_ms INTEGER,
        exit TEXT,
        memory_peak_bytes INTEGER,
        oom_kills INTEGER NOT NULL,
        invocation TEXT UNIQUE
    ) STRICT;
    CREATE TABLE settings (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;
",
    "
    ALTER TABLE verdicts ADD COLUMN result TEXT;
    ALTER TABLE verdicts ADD COLUMN last_line TEXT;
",
    "
    ALTER TABLE lives ADD COLUMN runner_scope TEXT;
    CREATE TABLE strays (
        scope TEXT NOT NULL,
        runner_id INTEGER NOT NULL,
        runner_name TEXT NOT NULL,
        boot_id TEXT NOT NULL,
        first_seen_ms INTEGER NOT NULL,
        lists INTEGER NOT NULL,
        is_foreign INTEGER NOT NULL,
        PRIMARY KEY (scope, runner_id)
    ) STRICT;
",
    "
    CREATE TABLE jobs (
        scope TEXT NOT NULL,
        source TEXT NOT NULL,
        id INTEGER NOT NULL,
        is_ended INTEGER NOT NULL,
        leaves_unix_ms INTEGER NOT NULL,
        job TEXT NOT NULL,
        PRIMARY KEY (scope, source, id)
    ) STRICT;
    CREATE INDEX jobs_by_end ON jobs (leaves_unix_ms);
    CREATE TABLE deliveries (
        id TEXT PRIMARY KEY,
        unix_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX deliveries_by_time ON deliveries (unix_ms);
",
    "
    ALTER TABLE lives ADD COLUMN phases TEXT;
    ALTER TABLE verdicts ADD COLUMN phases TEXT;
    ALTER TABLE verdicts ADD COLUMN cpu_ms INTEGER;
    ALTER TABLE verdicts ADD COLUMN generation TEXT;
    CREATE INDEX verdicts_by_runner ON verdicts (runner);
    CREATE INDEX verdicts_by_slot ON verdicts (slot, id);
    CREATE INDEX verdicts_by_end ON verdicts (ended_unix_ms);
",
    "
    ALTER TABLE verdicts ADD COLUMN version TEXT;
",
    "
    ALTER TABLE verdicts ADD COLUMN asked_after_ms INTEGER;
    ALTER TABLE verdicts ADD COLUMN listening_after_ms INTEGER;
",
    "
    ALTER TABLE verdicts ADD COLUMN layer_peak_bytes INTEGER;
    ALTER TABLE verdicts ADD COLUMN received_bytes INTEGER;
    ALTER TABLE verdicts ADD COLUMN sent_bytes INTEGER;
",
];

/// Newest schema.
const KNOWN: i64 = STEPS.len().cast_signed() as i64;

/// Checks the file and upgrades it to the newest schema.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed("read the schema number"))?;
    let newer = || StoreError::NewerSchema {
        path: path.to_owned(),
        found: version,
        known: KNOWN,
    };
    if version > KNOWN {
        return Err(newer());
    }
    let done = usize::try_from(version).map_err(|_| newer())?;
    check(connection).map_err(failed("check the pages"))?;
    shrink_in_steps(connection);
    if version == KNOWN {
        return Ok(());
    }
    upgrade(connection, &STEPS[done..]).map_err(failed("make tables"))
}

fn upgrade(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", KNOWN)?;
    transaction.commit()
}

/// Checks the pages of the file. Otherwise a damaged page would be found on the day on which it is read.
/// The check takes about a quarter of a second for 200,000 verdicts (140 MB).
fn check(connection: &Connection) -> rusqlite::Result<()> {
    let verdict: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(
        ffi::Error {
            code: ErrorCode::DatabaseCorrupt,
            extended_code: ffi::SQLITE_CORRUPT,
        },
        Some(verdict),
    ))
}

/// Sets up the file so that free pages can be given back a few at a time (`auto_vacuum` in `SQLite`).
///
/// A file of an earlier version is written anew for that. If the disk has not enough space, the file stays as
/// it is until the next start, and its free pages are only used again.
fn shrink_in_steps(connection: &Connection) {
    const INCREMENTAL: i64 = 2;
    let mode = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0));
    if mode == Ok(INCREMENTAL) {
        return;
    }
    let done = connection
        .pragma_update(None, "auto_vacuum", INCREMENTAL)
        .and_then(|()| connection.execute_batch("VACUUM"));
    if let Err(error) = done {
        tracing::warn!(%error, "cannot write the records anew: {error}; the file does not become smaller");
    }
}

fn failed(operation: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError::Sqlite { operation, source }
}
