//! `history`: the runners that ended, from the daemon's records.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use comfy_table::CellAlignment;
use serde::Serialize;

use super::common::{api_socket, block_on};
use super::kept_logs::{self, KeptLogs};
use super::table::{lines, table};
use crate::clock;
use crate::config::ByteSize;
use crate::http::client;
use crate::status::{HistoryQuery, MAX_PAGE, PhaseKind, VerdictRecord};
use crate::terminal;
use crate::view::span;

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryForm {
    /// A table for people.
    Text,
    /// One JSON array.
    Json,
    /// Comma-separated values (RFC 4180) with a header.
    Csv,
}

/// Prints the newest `count` runners for which the question asks, newest first. `since` is the age of the
/// oldest end.
pub fn history(
    config: &Path,
    mut query: HistoryQuery,
    since: Option<Duration>,
    count: usize,
    form: HistoryForm,
) -> anyhow::Result<()> {
    let age = since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    query.since_unix_ms = age.map(|age| clock::unix_ms().saturating_sub(age));
    let runners = block_on(read(&api_socket(config), query, count))??;
    match form {
        HistoryForm::Json => {
            let text = json(&runners, &kept_logs::all()?)?;
            stdio::print_line(terminal::plain_json(&text))?;
        }
        HistoryForm::Csv => {
            stdio::print(csv(
                &terminal::plain_document(&runners)?,
                &kept_logs::all()?,
            )?)?;
        }
        HistoryForm::Text if runners.is_empty() => {
            stdio::progress("no runner on record ended like this");
        }
        HistoryForm::Text => {
            stdio::print(render(
                &terminal::plain_document(&runners)?,
                &kept_logs::all()?,
            ))?;
        }
    }
    Ok(())
}

/// Reads page after page until `count` runners are there.
pub(super) async fn read(
    socket: &Path,
    mut query: HistoryQuery,
    count: usize,
) -> Result<Vec<VerdictRecord>, client::ClientError> {
    let mut runners = Vec::new();
    while runners.len() < count {
        let missing = u32::try_from(count - runners.len()).unwrap_or(u32::MAX);
        query.limit = Some(missing.min(MAX_PAGE));
        let page = client::history(socket, &query).await?;
        runners.extend(page.runners);
        if page.next.is_none() {
            break;
        }
        query.before = page.next;
    }
    Ok(runners)
}

/// One runner in the JSON output.
#[derive(Serialize)]
struct Entry<'r> {
    #[serde(flatten)]
    runner: &'r VerdictRecord,
    /// File with the log files of its listener, if they are kept.
    logs: Option<String>,
}

fn json(runners: &[VerdictRecord], kept: &KeptLogs) -> serde_json::Result<String> {
    let entry = |runner| Entry {
        runner,
        logs: kept.file(runner),
    };
    let entries: Vec<Entry<'_>> = runners.iter().map(entry).collect();
    serde_json::to_string_pretty(&entries)
}

fn render(runners: &[VerdictRecord], kept: &KeptLogs) -> String {
    let mut rows = table([
        "ENDED", "RUNNER", "VERDICT", "RESULT", "AGE", "JOB FOR", "CPU", "MEMORY", "LOGS", "JOB",
    ]);
    for column in rows.column_iter_mut().skip(4).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for runner in runners {
        let memory = runner.memory_peak_bytes.map(ByteSize);
        let logs = if kept.has(runner) { "kept" } else { "" };
        rows.add_row([
            date(runner.ended_unix_ms),
            runner.slot.to_string(),
            runner.verdict.to_string(),
            shown(runner.result),
            span(runner.lived_ms),
            runner.job_ms.map(span).unwrap_or_default(),
            runner.cpu_ms.map(span).unwrap_or_default(),
            shown(memory),
            logs.to_owned(),
            job(runner),
        ]);
    }
    lines(&rows)
}

/// Returns a time in UTC without its fraction.
pub(super) fn date(unix_ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_secs(unix_ms / 1_000);
    humantime::format_rfc3339_seconds(at).to_string()
}

fn shown<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Describes the job; without one, the runner's name at GitHub.
fn job(runner: &VerdictRecord) -> String {
    match &runner.job {
        Some(note) if !note.run_id.is_empty() => {
            format!("{}: {} / {}", note.repository, note.workflow, note.job)
        }
        Some(_) => "a job without a name".to_owned(),
        None => runner.runner.clone().unwrap_or_default(),
    }
}

/// Phases with a column of their own. The others are short, or known from the verdict.
const TIMED: [PhaseKind; 5] = [
    PhaseKind::Spare,
    PhaseKind::Minting,
    PhaseKind::Registering,
    PhaseKind::Idle,
    PhaseKind::Busy,
];

fn csv(runners: &[VerdictRecord], kept: &KeptLogs) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let fixed = [
        "ended_unix_ms",
        "slot",
        "runner",
        "verdict",
        "result",
        "lived_ms",
        "job_ms",
        "cpu_ms",
        "memory_peak_bytes",
        "oom_kills",
        "repository",
        "run_id",
        "workflow",
        "job",
        "exit",
        "generation",
        "invocation",
        "version",
        "logs",
        "asked_after_ms",
        "listening_after_ms",
        "layer_peak_bytes",
        "received_bytes",
        "sent_bytes",
    ]
    .map(str::to_owned);
    let phases = TIMED.map(|phase| format!("{phase}_after_ms"));
    writer.write_record(fixed.into_iter().chain(phases))?;
    for runner in runners {
        let note = runner.job.clone().unwrap_or_default();
        let fixed = [
            runner.ended_unix_ms.to_string(),
            runner.slot.to_string(),
            shown(runner.runner.as_ref()),
            runner.verdict.to_string(),
            shown(runner.result),
            runner.lived_ms.to_string(),
            shown(runner.job_ms),
            shown(runner.cpu_ms),
            shown(runner.memory_peak_bytes),
            runner.oom_kills.to_string(),
            note.repository,
            note.run_id,
            note.workflow,
            note.job,
            shown(runner.exit.as_ref()),
            shown(runner.generation.as_ref()),
            shown(runner.invocation.as_ref()),
            shown(runner.version),
            kept.file(runner).unwrap_or_default(),
            shown(runner.asked_after_ms),
            shown(runner.listening_after_ms),
            shown(runner.usage.layer_peak_bytes),
            shown(runner.usage.received_bytes),
            shown(runner.usage.sent_bytes),
        ];
        let first = |phase| runner.phases.iter().find(|entry| entry.phase == phase);
        let phases = TIMED.map(|phase| shown(first(phase).map(|entry| entry.after_ms)));
        writer.write_record(fixed.into_iter().chain(phases).map(|cell| inert(&cell)))?;
    }
    let bytes = writer.into_inner().context("cannot write the table")?;
    Ok(String::from_utf8(bytes)?)
}

/// Returns a cell that no spreadsheet takes for a formula. Jobs choose their names.
fn inert(cell: &str) -> String {
    if cell.starts_with(['=', '+', '-', '@']) {
        format!("'{cell}")
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LOG_BUNDLES_DIR;
    use crate::log_bundles::BundleName;
    use crate::pool::ResourceUse;
    use crate::status::{JobNote, JobResult, PhaseEntry, Verdict};
    use crate::world::Invocation;

    fn kept_name() -> BundleName {
        BundleName {
            ended_unix_ms: 1_796_000_000_500,
            slot: "ci-4".parse().unwrap(),
            invocation: Invocation::parse(&"0a".repeat(16)).unwrap(),
        }
    }

    fn kept() -> KeptLogs {
        KeptLogs::with(kept_name())
    }

    fn runners() -> Vec<VerdictRecord> {
        let job = VerdictRecord {
            slot: "ci-3".parse().unwrap(),
            verdict: Verdict::JobDone,
            runner: Some("runner-01-ci-3-0a1b2c3d".into()),
            runner_id: None,
            job: Some(JobNote {
                repository: "acme/widgets".into(),
                run_id: "17".into(),
                job: "=HYPERLINK(\"x\"), test".into(),
                workflow: "CI".into(),
            }),
            ended_unix_ms: 1_796_000_000_500,
            asked_after_ms: Some(280),
            listening_after_ms: Some(1_900),
            lived_ms: 75_300,
            job_ms: Some(61_000),
            exit: Some("status 100".into()),
            result: Some(JobResult::Succeeded),
            last_line: None,
            memory_peak_bytes: Some(1 << 30),
            oom_kills: 0,
            invocation: None,
            phases: vec![
                PhaseEntry {
                    phase: PhaseKind::Booting,
                    after_ms: 0,
                },
                PhaseEntry {
                    phase: PhaseKind::Spare,
                    after_ms: 300,
                },
                PhaseEntry {
                    phase: PhaseKind::Busy,
                    after_ms: 14_300,
                },
            ],
            cpu_ms: Some(42_000),
            usage: ResourceUse::default(),
            generation: Some("0123abcd".into()),
            version: "2.336.0".parse().ok(),
        };
        let failed = VerdictRecord {
            slot: "ci-4".parse().unwrap(),
            verdict: Verdict::BootFailed,
            runner: None,
            job: None,
            job_ms: None,
            result: None,
            memory_peak_bytes: None,
            phases: Vec::new(),
            cpu_ms: None,
            usage: ResourceUse::default(),
            generation: None,
            asked_after_ms: None,
            listening_after_ms: None,
            lived_ms: 20_000,
            invocation: Some(kept_name().invocation),
            ..job.clone()
        };
        vec![job, failed]
    }

    #[test]
    fn a_row_tells_the_end_its_cost_and_the_job() {
        assert_eq!(
            render(&runners(), &kept()),
            "\
ENDED                 RUNNER  VERDICT      RESULT          AGE  JOB FOR   CPU   MEMORY  LOGS  JOB
2026-11-30T00:53:20Z  ci-3    job_done     succeeded  1 m 15 s  1 m 1 s  42 s  1.0 GiB        acme/widgets: CI / =HYPERLINK(\"x\"), test
2026-11-30T00:53:20Z  ci-4    boot_failed                 20 s                          kept
"
        );
    }

    #[test]
    fn values_have_a_header_quotes_and_no_formula() {
        let text = csv(&runners(), &kept()).unwrap();
        let mut rows = csv::Reader::from_reader(text.as_bytes());
        let header = rows.headers().unwrap().clone();
        let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
        let cell = |row: usize, name: &str| {
            let column = header.iter().position(|column| column == name);
            rows[row][column.unwrap()].to_owned()
        };
        assert_eq!(cell(0, "job"), "'=HYPERLINK(\"x\"), test");
        assert_eq!(cell(0, "busy_after_ms"), "14300");
        assert_eq!(cell(0, "version"), "2.336.0");
        assert_eq!(cell(0, "idle_after_ms"), "");
        assert_eq!(cell(0, "asked_after_ms"), "280");
        assert_eq!(cell(0, "listening_after_ms"), "1900");
        assert_eq!(cell(1, "listening_after_ms"), "");
        assert_eq!(cell(1, "verdict"), "boot_failed");
        assert_eq!(cell(1, "cpu_ms"), "");
        assert_eq!(cell(0, "logs"), "");
        let file = format!("{LOG_BUNDLES_DIR}/{}", kept_name());
        assert_eq!(cell(1, "logs"), file);
    }

    #[test]
    fn json_has_every_fact_of_a_runner_and_its_kept_log_files() {
        let text = json(&runners(), &kept()).unwrap();
        let read: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(read[0]["logs"], serde_json::Value::Null);
        let file = format!("{LOG_BUNDLES_DIR}/{}", kept_name());
        assert_eq!(read[1]["logs"], file);
        assert_eq!(read[0]["listening_after_ms"], 1_900);
        // A program that reads the records alone still can.
        let records: Vec<VerdictRecord> = serde_json::from_str(&text).unwrap();
        assert_eq!(records, runners());
    }
}
