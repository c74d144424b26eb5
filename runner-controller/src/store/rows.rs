//! Conversions between records and rows, but for those of verdicts.

use std::fmt::Display;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row, named_params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pool::{
    HostId, Invocation, Job, JobNote, PhaseKind, Registration, RunnerId, RunnerName, ScopeId,
    SlotId, Timeline, Timestamp,
};
use crate::world::{RunnerRecord, StrayRecord};

/// Returns the same bits as a signed integer, because `SQLite` has no unsigned ones. Every id is read as
/// it was written.
pub(super) fn signed(number: u64) -> i64 {
    number.cast_signed()
}

pub(super) fn number(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

pub(super) fn maybe_number(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<u64>> {
    let number: Option<i64> = row.get(column)?;
    Ok(number.map(i64::cast_unsigned))
}

pub(super) fn put(connection: &Connection, runner: &RunnerRecord) -> rusqlite::Result<()> {
    let note = runner.job.as_ref().map(|job| &job.note);
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO lives VALUES (
            :slot, :boot_id, :invocation, :phase, :since, :born, :runner_name, :runner_id,
            :repository, :run_id, :job, :workflow, :job_since, :runner_scope, :phases)",
    )?;
    insert.execute(named_params! {
        ":slot": runner.slot.to_string(),
        ":boot_id": runner.boot_id,
        ":invocation": runner.invocation.as_ref().map(Invocation::as_str),
        ":phase": runner.phase.as_ref(),
        ":since": signed(runner.since.millis()),
        ":born": signed(runner.started_at.millis()),
        ":runner_name": runner.registration.as_ref().map(|runner| runner.name.to_string()),
        ":runner_id": runner.registration.as_ref().and_then(|runner| runner.id).map(|id| signed(id.0)),
        ":repository": note.map(|note| &note.repository),
        ":run_id": note.map(|note| &note.run_id),
        ":job": note.map(|note| &note.job),
        ":workflow": note.map(|note| &note.workflow),
        ":runner_scope": runner.registration.as_ref().and_then(|r| r.scope.as_ref()).map(ScopeId::as_str),
        ":job_since": runner.job.as_ref().map(|job| signed(job.since.millis())),
        ":phases": runner.timeline.as_ref().map(phases),
    })?;
    Ok(())
}

pub(super) fn runners(
    connection: &Connection,
    host: &HostId,
) -> rusqlite::Result<Vec<RunnerRecord>> {
    let mut select = connection.prepare_cached("SELECT * FROM lives ORDER BY slot")?;
    let mut rows = select.query([])?;
    let mut runners = Vec::new();
    while let Some(row) = rows.next()? {
        let slot: String = row.get("slot")?;
        match runner(row, &slot, host)? {
            Ok(runner) => runners.push(runner),
            Err(column) => tracing::warn!(
                slot,
                column,
                "leaving out the record of slot {slot}: cannot read its {column}"
            ),
        }
    }
    Ok(runners)
}

/// Returns a record, or the name of the column that cannot be read. The host may have been renamed since
/// it was written.
fn runner(
    row: &Row<'_>,
    slot: &str,
    host: &HostId,
) -> rusqlite::Result<Result<RunnerRecord, &'static str>> {
    let Ok(slot) = slot.parse::<SlotId>() else {
        return Ok(Err("slot"));
    };
    let invocation: Option<String> = row.get("invocation")?;
    let invocation = match invocation {
        None => None,
        Some(text) => match Invocation::parse(&text) {
            Some(invocation) => Some(invocation),
            None => return Ok(Err("invocation")),
        },
    };
    let name: Option<String> = row.get("runner_name")?;
    let registration = match name {
        None => None,
        Some(text) => match RunnerName::parse(host, &text) {
            Some(name) => Some(Registration {
                // A version before this column wrote none.
                scope: scope(row, "runner_scope")?,
                id: maybe_number(row, "runner_id")?.map(RunnerId),
                name,
            }),
            None => return Ok(Err("runner name")),
        },
    };
    let job = match (note(row)?, maybe_number(row, "job_since_ms")?) {
        (Some(note), Some(since)) => Some(Job {
            note,
            since: Timestamp::from_millis(since),
        }),
        (None, _) | (_, None) => None,
    };
    Ok(Ok(RunnerRecord {
        slot,
        boot_id: row.get("boot_id")?,
        invocation,
        // This phase assumes that it has a config, so GitHub is asked before it ends.
        phase: named(row, "phase", PhaseKind::Registering)?,
        since: Timestamp::from_millis(number(row, "since_ms")?),
        started_at: Timestamp::from_millis(number(row, "born_ms")?),
        timeline: timeline(row)?,
        registration,
        job,
    }))
}

/// Reads a scope. Text that is not one counts as an unknown scope, in which nothing is deleted.
fn scope(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<ScopeId>> {
    let text: Option<String> = row.get(column)?;
    Ok(text.and_then(|text| ScopeId::parse(&text)))
}

pub(super) fn put_stray(connection: &Connection, stray: &StrayRecord) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO strays VALUES (
            :scope, :id, :name, :boot_id, :first_seen, :lists, :is_foreign)",
    )?;
    insert.execute(named_params! {
        ":scope": stray.scope.as_str(),
        ":id": signed(stray.id.0),
        ":name": stray.name.to_string(),
        ":boot_id": stray.boot_id,
        ":first_seen": signed(stray.first_seen.millis()),
        ":lists": stray.lists,
        ":is_foreign": stray.is_foreign,
    })?;
    Ok(())
}

pub(super) fn remove_stray(
    connection: &Connection,
    scope: &ScopeId,
    id: RunnerId,
) -> rusqlite::Result<()> {
    let mut delete =
        connection.prepare_cached("DELETE FROM strays WHERE scope = ?1 AND runner_id = ?2")?;
    delete.execute((scope.as_str(), signed(id.0)))?;
    Ok(())
}

/// Returns the records of orphaned registrations of `host`, ordered by scope and id.
pub(super) fn strays(connection: &Connection, host: &HostId) -> rusqlite::Result<Vec<StrayRecord>> {
    let mut select = connection.prepare_cached("SELECT * FROM strays ORDER BY scope, runner_id")?;
    let mut rows = select.query([])?;
    let mut strays = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get("runner_name")?;
        // The host may have been renamed since it was written.
        let (Some(scope), Some(parsed)) = (scope(row, "scope")?, RunnerName::parse(host, &name))
        else {
            tracing::warn!(
                name,
                "leaving out the record of registration {name}: cannot read it"
            );
            continue;
        };
        strays.push(StrayRecord {
            scope,
            id: RunnerId(number(row, "runner_id")?),
            name: parsed,
            boot_id: row.get("boot_id")?,
            first_seen: Timestamp::from_millis(number(row, "first_seen_ms")?),
            lists: row.get("lists")?,
            is_foreign: row.get("is_foreign")?,
        });
    }
    Ok(strays)
}

/// Reads the name of a variant.
///
/// Another version may have written a name that this one does not know. It counts as `instead`, because
/// leaving out the row would lose more.
pub(super) fn named<T: FromStr + Display>(
    row: &Row<'_>,
    column: &str,
    instead: T,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    Ok(text.parse().unwrap_or_else(|_| {
        let slot: String = row.get("slot").unwrap_or_default();
        tracing::warn!(
            slot,
            column,
            text,
            %instead,
            "cannot read the {column} {text:?} of slot {slot} in the records: this version does not know it; it counts as {instead}"
        );
        instead
    }))
}

pub(super) fn note(row: &Row<'_>) -> rusqlite::Result<Option<JobNote>> {
    let Some(repository) = row.get("job_repository")? else {
        return Ok(None);
    };
    let text = |column| {
        row.get::<_, Option<String>>(column)
            .map(Option::unwrap_or_default)
    };
    Ok(Some(JobNote {
        repository,
        run_id: text("job_run_id")?,
        job: text("job_name")?,
        workflow: text("job_workflow")?,
    }))
}

pub(super) fn remove(connection: &Connection, slot: &SlotId) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM lives WHERE slot = ?1")?;
    delete.execute([slot.to_string()])?;
    Ok(())
}

/// Returns the phases of a runner as JSON: pairs of the phase and its start in milliseconds since the boot.
fn phases(timeline: &Timeline) -> String {
    let pairs = timeline.iter().map(|(phase, at)| (phase, at.millis()));
    json(&pairs.collect::<Vec<_>>())
}

fn timeline(row: &Row<'_>) -> rusqlite::Result<Option<Timeline>> {
    let pairs: Option<Vec<(PhaseKind, u64)>> = from_json(row, "phases")?;
    let entries = pairs.into_iter().flatten();
    let entries = entries.map(|(phase, at)| (phase, Timestamp::from_millis(at)));
    Ok(Timeline::from_entries(entries.collect()))
}

/// Returns a list as JSON. The serialization of names and numbers cannot fail.
pub(super) fn json<T: Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}

/// Reads a list. Earlier versions wrote none, and one that another version wrote may not be understood.
pub(super) fn from_json<T: DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<Option<Vec<T>>> {
    let text: Option<String> = row.get(column)?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

pub(super) fn setting(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    let mut select = connection.prepare_cached("SELECT value FROM settings WHERE key = ?1")?;
    select.query_row([key], |row| row.get(0)).optional()
}

pub(super) fn set_setting(
    connection: &Connection,
    key: &str,
    value: Option<&str>,
) -> rusqlite::Result<()> {
    match value {
        Some(value) => connection.execute(
            "INSERT OR REPLACE INTO settings VALUES (?1, ?2)",
            [key, value],
        )?,
        None => connection.execute("DELETE FROM settings WHERE key = ?1", [key])?,
    };
    Ok(())
}
