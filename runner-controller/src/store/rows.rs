//! Conversions between records and rows.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row, named_params};

use crate::pool::{
    HostId, Invocation, Job, JobNote, JobResult, PhaseKind, Registration, RunnerId, RunnerName,
    ScopeId, SlotId, Timestamp, Verdict,
};
use crate::world::{RunnerRecord, StrayRecord, VerdictRecord};

/// Returns the same bits as a signed integer, because `SQLite` has no unsigned ones. Every id is read as
/// it was written.
fn signed(number: u64) -> i64 {
    number.cast_signed()
}

fn number(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn maybe_number(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<u64>> {
    let number: Option<i64> = row.get(column)?;
    Ok(number.map(i64::cast_unsigned))
}

pub(super) fn put(connection: &Connection, runner: &RunnerRecord) -> rusqlite::Result<()> {
    let note = runner.job.as_ref().map(|job| &job.note);
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO lives VALUES (
            :slot, :boot_id, :invocation, :phase, :since, :born, :runner_name, :runner_id,
            :repository, :run_id, :job, :workflow, :job_since, :runner_scope)",
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
fn named<T: FromStr + Display>(row: &Row<'_>, column: &str, instead: T) -> rusqlite::Result<T> {
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

fn note(row: &Row<'_>) -> rusqlite::Result<Option<JobNote>> {
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

pub(super) fn add_verdict(
    connection: &Connection,
    verdict: &VerdictRecord,
) -> rusqlite::Result<()> {
    let note = verdict.job.as_ref();
    let mut insert = connection.prepare_cached(
        "INSERT INTO verdicts (
            slot, verdict, runner, runner_id, job_repository, job_run_id, job_name, job_workflow,
            born_unix_ms, ended_unix_ms, job_ms, exit, memory_peak_bytes, oom_kills, invocation,
            result, last_line)
         VALUES (
            :slot, :verdict, :runner, :runner_id, :repository, :run_id, :job, :workflow,
            :born, :ended, :job_ms, :exit, :memory_peak, :oom_kills, :invocation,
            :result, :last_line)
         ON CONFLICT (invocation) DO NOTHING",
    )?;
    insert.execute(named_params! {
        ":slot": verdict.slot.to_string(),
        ":verdict": verdict.verdict.as_ref(),
        ":runner": verdict.runner,
        ":runner_id": verdict.runner_id.map(|id| signed(id.0)),
        ":repository": note.map(|note| &note.repository),
        ":run_id": note.map(|note| &note.run_id),
        ":job": note.map(|note| &note.job),
        ":workflow": note.map(|note| &note.workflow),
        ":born": signed(verdict.ended_unix_ms.saturating_sub(verdict.lived_ms)),
        ":ended": signed(verdict.ended_unix_ms),
        ":job_ms": verdict.job_ms.map(signed),
        ":exit": verdict.exit,
        ":result": verdict.result.as_ref().map(AsRef::as_ref),
        ":last_line": verdict.last_line,
        ":memory_peak": verdict.memory_peak_bytes.map(signed),
        ":oom_kills": signed(verdict.oom_kills),
        ":invocation": verdict.invocation.as_ref().map(Invocation::as_str),
    })?;
    Ok(())
}

/// Returns the id of the newest verdict. Ids grow by one.
pub(super) fn newest_verdict(connection: &Connection) -> rusqlite::Result<i64> {
    let mut select = connection.prepare_cached("SELECT coalesce(max(id), 0) FROM verdicts")?;
    select.query_row([], |row| row.get(0))
}

/// Removes all but the newest `keep` verdicts, and those on the newest `keep_of_slot` starts of each slot.
/// Reads every verdict.
pub(super) fn prune(
    connection: &Connection,
    keep: i64,
    keep_of_slot: usize,
) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM verdicts WHERE id <= :oldest AND id NOT IN (
            SELECT id FROM (
                SELECT id, row_number() OVER (PARTITION BY slot ORDER BY id DESC) AS age
                FROM verdicts WHERE invocation IS NOT NULL)
            WHERE age <= :of_slot)",
    )?;
    delete.execute(named_params! {
        ":oldest": newest_verdict(connection)? - keep,
        ":of_slot": i64::try_from(keep_of_slot).unwrap_or(i64::MAX),
    })?;
    Ok(())
}

/// Returns those of the starts that have a verdict.
pub(super) fn judged(
    connection: &Connection,
    mut starts: BTreeSet<Invocation>,
) -> rusqlite::Result<BTreeSet<Invocation>> {
    let mut select = connection.prepare_cached("SELECT 1 FROM verdicts WHERE invocation = ?1")?;
    let mut failed = None;
    starts.retain(|start| {
        let found = select.exists([start.as_str()]);
        found.unwrap_or_else(|error| {
            failed = Some(error);
            false
        })
    });
    failed.map_or(Ok(starts), Err)
}

pub(super) fn recent(
    connection: &Connection,
    count: usize,
) -> rusqlite::Result<Vec<VerdictRecord>> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let mut select =
        connection.prepare_cached("SELECT * FROM verdicts ORDER BY id DESC LIMIT ?1")?;
    let mut rows = select.query([count])?;
    let mut verdicts = Vec::new();
    while let Some(row) = rows.next()? {
        let slot: String = row.get("slot")?;
        let Ok(slot) = slot.parse() else {
            tracing::warn!(slot, "leaving out a verdict: cannot read its slot {slot:?}");
            continue;
        };
        let invocation: Option<String> = row.get("invocation")?;
        let ended_unix_ms = number(row, "ended_unix_ms")?;
        verdicts.push(VerdictRecord {
            slot,
            verdict: named(row, "verdict", Verdict::Unexplained)?,
            runner: row.get("runner")?,
            runner_id: maybe_number(row, "runner_id")?.map(RunnerId),
            job: note(row)?,
            ended_unix_ms,
            lived_ms: ended_unix_ms.saturating_sub(number(row, "born_unix_ms")?),
            job_ms: maybe_number(row, "job_ms")?,
            exit: row.get("exit")?,
            result: result(row)?,
            last_line: row.get("last_line")?,
            memory_peak_bytes: maybe_number(row, "memory_peak_bytes")?,
            oom_kills: number(row, "oom_kills")?,
            invocation: invocation.and_then(|text| Invocation::parse(&text)),
        });
    }
    Ok(verdicts)
}

/// Reads the result of a job. Earlier versions wrote none.
fn result(row: &Row<'_>) -> rusqlite::Result<Option<JobResult>> {
    let text: Option<String> = row.get("result")?;
    text.map(|_| named(row, "result", JobResult::Unknown))
        .transpose()
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
