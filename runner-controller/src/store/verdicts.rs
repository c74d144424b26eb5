//! The verdicts: the history of the runners that ended.

use std::collections::BTreeSet;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, named_params, params_from_iter};

use super::rows::{from_json, json, maybe_number, named, note, number, signed};
use crate::config::HistoryConfig;
use crate::pool::{Invocation, JobResult, ResourceUse, RunnerId, Verdict};
use crate::status::{HistoryPage, HistoryQuery};
use crate::world::VerdictRecord;

/// Maximum number of verdicts that one call removes, so that no call takes long.
const REMOVED_AT_ONCE: u32 = 1_000;

/// Maximum number of old verdicts that one call considers. It is more than those that are kept for the starts
/// that root has on record, or no other would ever be removed.
const CONSIDERED_AT_ONCE: u32 = 10_000;

/// Adds a verdict, unless its start has one. Returns the newest id. Ids grow by one.
pub(super) fn add(connection: &Connection, verdict: &VerdictRecord) -> rusqlite::Result<i64> {
    let note = verdict.job.as_ref();
    let mut insert = connection.prepare_cached(
        "INSERT INTO verdicts (
            slot, verdict, runner, runner_id, job_repository, job_run_id, job_name, job_workflow,
            born_unix_ms, ended_unix_ms, job_ms, exit, memory_peak_bytes, oom_kills, invocation,
            result, last_line, phases, cpu_ms, generation, version, asked_after_ms, listening_after_ms,
            layer_peak_bytes, received_bytes, sent_bytes)
         VALUES (
            :slot, :verdict, :runner, :runner_id, :repository, :run_id, :job, :workflow,
            :born, :ended, :job_ms, :exit, :memory_peak, :oom_kills, :invocation,
            :result, :last_line, :phases, :cpu_ms, :generation, :version, :asked, :listening,
            :layer_peak, :received, :sent)
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
        ":phases": json(&verdict.phases),
        ":cpu_ms": verdict.cpu_ms.map(signed),
        ":generation": verdict.generation,
        ":version": verdict.version.map(|version| version.to_string()),
        ":asked": verdict.asked_after_ms.map(signed),
        ":listening": verdict.listening_after_ms.map(signed),
        ":layer_peak": verdict.usage.layer_peak_bytes.map(signed),
        ":received": verdict.usage.received_bytes.map(signed),
        ":sent": verdict.usage.sent_bytes.map(signed),
        ":oom_kills": signed(verdict.oom_kills),
        ":invocation": verdict.invocation.as_ref().map(Invocation::as_str),
    })?;
    newest(connection)
}

fn newest(connection: &Connection) -> rusqlite::Result<i64> {
    let mut select = connection.prepare_cached("SELECT coalesce(max(id), 0) FROM verdicts")?;
    select.query_row([], |row| row.get(0))
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

/// Removes verdicts that are beyond the maximum number or age, the oldest first. Keeps those on the newest
/// `keep_of_slot` starts of each slot.
///
/// `now_unix_ms` is the end of the newest runner.
pub(super) fn prune(
    connection: &Connection,
    keep: &HistoryConfig,
    keep_of_slot: usize,
    now_unix_ms: u64,
) -> rusqlite::Result<()> {
    let age = u64::try_from(keep.age.as_millis()).unwrap_or(u64::MAX);
    let mut delete = connection.prepare_cached(
        "DELETE FROM verdicts WHERE id IN (
            SELECT id FROM (
                SELECT * FROM (SELECT id, slot, invocation FROM verdicts
                    WHERE id <= :oldest ORDER BY id LIMIT :considered)
                UNION
                SELECT * FROM (SELECT id, slot, invocation FROM verdicts
                    WHERE ended_unix_ms < :before ORDER BY ended_unix_ms LIMIT :considered)
            ) AS old
            WHERE (invocation IS NULL OR :of_slot <= (SELECT count(*) FROM (
                    SELECT 1 FROM verdicts AS new
                    WHERE new.slot = old.slot AND new.id > old.id AND new.invocation IS NOT NULL
                    LIMIT :of_slot)))
            ORDER BY id LIMIT :at_once)",
    )?;
    delete.execute(named_params! {
        ":oldest": newest(connection)? - i64::from(keep.runners),
        ":before": signed(now_unix_ms.saturating_sub(age)),
        ":of_slot": i64::try_from(keep_of_slot).unwrap_or(i64::MAX),
        ":considered": CONSIDERED_AT_ONCE,
        ":at_once": REMOVED_AT_ONCE,
    })?;
    // Gives free pages back to the filesystem. Each row of the answer is a step of the work.
    let mut vacuum = connection.prepare_cached("PRAGMA incremental_vacuum(512)")?;
    let mut steps = vacuum.query([])?;
    while steps.next()?.is_some() {}
    Ok(())
}

/// Returns the newest `count` verdicts, newest first.
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
        verdicts.extend(verdict(row)?);
    }
    Ok(verdicts)
}

/// Returns the verdicts for which a question asks, newest first.
pub(super) fn history(
    connection: &Connection,
    query: &HistoryQuery,
) -> rusqlite::Result<HistoryPage> {
    let (conditions, values) = conditions(query);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT * FROM verdicts WHERE {} ORDER BY id DESC LIMIT {}",
        conditions.join(" AND "),
        query.page()
    ))?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut page = HistoryPage::default();
    let (mut count, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        count += 1;
        last = Some(number(row, "id")?);
        page.runners.extend(verdict(row)?);
    }
    // A full page may have older ones after it.
    page.next = last.filter(|_| count == query.page());
    Ok(page)
}

/// Returns the conditions of a question, with their values. No text of the question is in the statement.
fn conditions(query: &HistoryQuery) -> (Vec<&'static str>, Vec<Value>) {
    let mut conditions = vec!["TRUE"];
    let mut values = Vec::new();
    let mut add = |condition: &'static str, of_it: Vec<Value>| {
        conditions.push(condition);
        values.extend(of_it);
    };
    let text = |text: &String| Value::Text(text.clone());
    // The name of a slot is that of its pool, a dash and a number.
    if let Some(pool) = &query.pool {
        add(
            "substr(slot, 1, instr(slot, '-') - 1) = ?",
            vec![text(pool)],
        );
    }
    if let Some(runner) = &query.runner {
        // `IN` would use neither index.
        add("(slot = ? OR runner = ?)", vec![text(runner), text(runner)]);
    }
    if let Some(verdict) = query.verdict {
        add("verdict = ?", vec![Value::Text(verdict.to_string())]);
    }
    if let Some(repository) = &query.repository {
        add("job_repository = ? COLLATE NOCASE", vec![text(repository)]);
    }
    if let Some(run_id) = &query.run_id {
        add("job_run_id = ?", vec![text(run_id)]);
    }
    if let Some(since) = query.since_unix_ms {
        add("ended_unix_ms >= ?", vec![Value::Integer(signed(since))]);
    }
    if let Some(before) = query.before {
        add("id < ?", vec![Value::Integer(signed(before))]);
    }
    if query.failed {
        let verdicts = Verdict::ALL.iter().filter(|verdict| verdict.is_failure());
        let results = JobResult::ALL.iter();
        let results = results.filter(|r| **r == JobResult::Failed || r.is_cut_short());
        let list = |names: Vec<String>| Value::Text(json(&names));
        add(
            "(verdict IN (SELECT value FROM json_each(?)) OR result IN (SELECT value FROM json_each(?)))",
            vec![
                list(verdicts.map(ToString::to_string).collect()),
                list(results.map(ToString::to_string).collect()),
            ],
        );
    }
    (conditions, values)
}

/// Reads a verdict; `None` if its slot cannot be read.
fn verdict(row: &Row<'_>) -> rusqlite::Result<Option<VerdictRecord>> {
    let slot: String = row.get("slot")?;
    let Ok(slot) = slot.parse() else {
        tracing::warn!(slot, "leaving out a verdict: cannot read its slot {slot:?}");
        return Ok(None);
    };
    let invocation: Option<String> = row.get("invocation")?;
    let version: Option<String> = row.get("version")?;
    let ended_unix_ms = number(row, "ended_unix_ms")?;
    Ok(Some(VerdictRecord {
        slot,
        verdict: named(row, "verdict", Verdict::Unexplained)?,
        runner: row.get("runner")?,
        runner_id: maybe_number(row, "runner_id")?.map(RunnerId),
        job: note(row)?,
        ended_unix_ms,
        lived_ms: ended_unix_ms.saturating_sub(number(row, "born_unix_ms")?),
        asked_after_ms: maybe_number(row, "asked_after_ms")?,
        listening_after_ms: maybe_number(row, "listening_after_ms")?,
        job_ms: maybe_number(row, "job_ms")?,
        exit: row.get("exit")?,
        result: result(row)?,
        last_line: row.get("last_line")?,
        memory_peak_bytes: maybe_number(row, "memory_peak_bytes")?,
        oom_kills: number(row, "oom_kills")?,
        invocation: invocation.and_then(|text| Invocation::parse(&text)),
        phases: from_json(row, "phases")?.unwrap_or_default(),
        cpu_ms: maybe_number(row, "cpu_ms")?,
        usage: ResourceUse {
            layer_peak_bytes: maybe_number(row, "layer_peak_bytes")?,
            received_bytes: maybe_number(row, "received_bytes")?,
            sent_bytes: maybe_number(row, "sent_bytes")?,
        },
        generation: row.get("generation")?,
        version: version.and_then(|text| text.parse().ok()),
    }))
}

/// Reads the result of a job. Earlier versions wrote none.
fn result(row: &Row<'_>) -> rusqlite::Result<Option<JobResult>> {
    let text: Option<String> = row.get("result")?;
    text.map(|_| named(row, "result", JobResult::Unknown))
        .transpose()
}
