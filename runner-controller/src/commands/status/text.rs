//! The status as text: problems first, then the pools, their runners and the last verdicts.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, Table};

use crate::commands::table::{lines, table};
use crate::config::ByteSize;
use crate::http::health;
use crate::status::{EndedStatus, PoolStatus, RunnerStatus, Status};

/// Maximum number of ended runners in the text. The document has up to 20.
const ENDED: usize = 8;

/// Returns the status as text.
pub(super) fn render(status: &Status) -> String {
    let health = health(status);
    let verdict = if health.healthy {
        "healthy"
    } else {
        "NOT healthy"
    };
    let mut text = format!(
        "{} at {}: {}, {verdict}\n",
        status.host, status.scope, status.state
    );
    for reason in &health.reasons {
        let _ = writeln!(text, "  ! {reason}");
    }
    for reason in &status.closed {
        let _ = writeln!(text, "  no new runners: {reason}");
    }
    for pool in &status.pools {
        for backoff in &pool.backoffs {
            let _ = writeln!(
                text,
                "  ! pool {}: {} failed {}, next try in {}: {}",
                pool.name,
                backoff.failure,
                times(backoff.failures),
                span(backoff.retry_in_ms),
                backoff.reason
            );
        }
    }
    let answered = status.github.last_ok_unix_ms.map_or_else(
        || "has not answered yet".to_owned(),
        |at| {
            format!(
                "answered {} ago",
                span(status.at_unix_ms.saturating_sub(at))
            )
        },
    );
    let _ = writeln!(text, "  GitHub {answered}");
    for stray in &status.strays {
        let _ = writeln!(text, "  deleting runner {stray}, which has no container");
    }
    if !status.pools.is_empty() {
        text += &section(&pools(&status.pools));
    }
    if status.pools.iter().any(|pool| !pool.runners.is_empty()) {
        text += &section(&runners(&status.pools));
    }
    if !status.recent.is_empty() {
        text += &section(&ended(status));
    }
    text
}

fn section(table: &Table) -> String {
    format!("\n{}", lines(table))
}

/// Table of the pools: runners that are there, and after a slash the configured number.
fn pools(pools: &[PoolStatus]) -> Table {
    let mut rows = table([
        "POOL", "IDLE", "SPARE", "BUSY", "STARTING", "ENDING", "ALL", "FAILED", "LABELS",
    ]);
    for column in rows.column_iter_mut().skip(1).take(7) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for pool in pools {
        let count = |phase: &str| pool.phases.get(phase).copied().unwrap_or_default();
        let all: u64 = pool.phases.values().sum();
        rows.add_row([
            pool.name.clone(),
            format!("{}/{}", count("idle"), pool.wanted.idle),
            format!("{}/{}", count("spare"), pool.wanted.spare),
            count("busy").to_string(),
            (count("booting") + count("minting") + count("registering")).to_string(),
            count("retiring").to_string(),
            format!("{all}/{}", pool.wanted.max),
            pool.failed.to_string(),
            pool.labels.join(", "),
        ]);
    }
    rows
}

/// Table of the runners that have a container.
fn runners(pools: &[PoolStatus]) -> Table {
    let mut rows = table(["RUNNER", "STATE", "FOR", "AGE", "JOB OR NAME"]);
    for runner in pools.iter().flat_map(|pool| &pool.runners) {
        rows.add_row([
            runner.machine.clone(),
            runner.phase.clone(),
            span(runner.phase_ms),
            span(runner.age_ms),
            occupation(runner),
        ]);
    }
    rows
}

/// Describes the job of a runner, the cause of its end, or else its name at GitHub.
fn occupation(runner: &RunnerStatus) -> String {
    match (&runner.job, &runner.cause) {
        (_, Some(cause)) => format!("ends with {cause}"),
        (Some(job), None) if !job.run_id.is_empty() => format!(
            "{} / {}\nhttps://github.com/{}/actions/runs/{}",
            job.workflow, job.job, job.repository, job.run_id
        ),
        (Some(_), None) => "a job without a name".to_owned(),
        (None, None) => runner.runner.clone().unwrap_or_default(),
    }
}

/// Table of the runners that ended last.
fn ended(status: &Status) -> Table {
    let mut rows = table(["ENDED", "VERDICT", "AGO", "JOB", "MEMORY", "EXIT"]);
    let recent = &status.recent[..status.recent.len().min(ENDED)];
    for ended in recent {
        rows.add_row(ended_row(ended, status.at_unix_ms));
    }
    rows
}

fn ended_row(ended: &EndedStatus, now_unix_ms: u64) -> [String; 6] {
    let job = ended.job_ms.map_or_else(|| "no job".to_owned(), span);
    let memory = ended
        .memory_peak_bytes
        .map(|bytes| ByteSize(bytes).to_string());
    [
        ended.machine.clone(),
        ended.verdict.clone(),
        span(now_unix_ms.saturating_sub(ended.ended_unix_ms)),
        job,
        memory.unwrap_or_default(),
        ended.exit.as_deref().unwrap_or("no record").to_owned(),
    ]
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{count} times"),
    }
}

/// Returns a duration in its two largest units, for example `1h 1m`.
fn span(millis: u64) -> String {
    let rounded = if millis < 1000 {
        Duration::from_millis(millis / 100 * 100)
    } else {
        Duration::from_secs(millis / 1000)
    };
    let text = humantime::format_duration(rounded).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{BackoffStatus, GitHubStatus, JobStatus, Wanted};

    /// A host with two pools, in which something of everything happens.
    fn busy_host() -> Status {
        let runner = |machine: &str, phase: &str, phase_ms, age_ms| RunnerStatus {
            machine: machine.into(),
            phase: phase.into(),
            phase_ms,
            age_ms,
            ..RunnerStatus::default()
        };
        let ci = PoolStatus {
            name: "ci".into(),
            labels: vec!["self-hosted".into(), "ci".into()],
            wanted: Wanted {
                idle: 1,
                spare: 1,
                max: 8,
            },
            phases: [("busy", 1), ("idle", 1), ("booting", 1)]
                .map(|(phase, count)| (phase.to_owned(), count))
                .into(),
            failed: 2,
            runners: vec![
                RunnerStatus {
                    job: Some(JobStatus {
                        repository: "acme/widgets".into(),
                        workflow: "CI".into(),
                        job: "test (ubuntu, stable)".into(),
                        run_id: "17204512345".into(),
                        running_ms: 61_000,
                    }),
                    ..runner("ci-1", "busy", 61_000, 3_700_000)
                },
                RunnerStatus {
                    runner: Some("runner-01-ci-2-0a1b2c3d".into()),
                    ..runner("ci-2", "idle", 200_000, 212_000)
                },
                runner("ci-3", "booting", 400, 400),
            ],
            ..PoolStatus::default()
        };
        let fuzz = PoolStatus {
            name: "fuzz".into(),
            labels: vec!["self-hosted".into(), "fuzz".into()],
            wanted: Wanted {
                idle: 1,
                spare: 0,
                max: 2,
            },
            phases: [("retiring".to_owned(), 1)].into(),
            backoffs: vec![BackoffStatus {
                failure: "forbidden".into(),
                failures: 2,
                retry_in_ms: 35_000,
                reason: "GitHub answered 403".into(),
            }],
            runners: vec![RunnerStatus {
                cause: Some("idle_aged".into()),
                ..runner("fuzz-1", "retiring", 1_000, 86_400_000)
            }],
            ..PoolStatus::default()
        };
        let ended =
            |machine: &str, verdict: &str, job_ms, exit: Option<&str>, memory| EndedStatus {
                machine: machine.into(),
                verdict: verdict.into(),
                ended_unix_ms: 1_000_000 - 72_000,
                job_ms,
                exit: exit.map(str::to_owned),
                memory_peak_bytes: memory,
                ..EndedStatus::default()
            };
        Status {
            host: "runner-01".into(),
            scope: "acme/widgets".into(),
            state: "running".into(),
            at_unix_ms: 1_000_000,
            github: GitHubStatus {
                last_ok_unix_ms: Some(998_000),
                ..GitHubStatus::default()
            },
            strays: vec!["runner-01-ci-4-0000dead".into()],
            pools: vec![ci, fuzz],
            recent: vec![
                ended(
                    "ci-4",
                    "job_done",
                    Some(332_000),
                    Some("status 0"),
                    Some(3 << 29),
                ),
                ended("fuzz-2", "registration_timeout", None, None, None),
            ],
            ..Status::default()
        }
    }

    #[test]
    fn a_busy_host_reads_like_this() {
        let wanted = "\
runner-01 at acme/widgets: running, NOT healthy
  ! pool fuzz has no runner ready for a job: GitHub answered 403
  ! pool fuzz: forbidden failed twice, next try in 35s: GitHub answered 403
  GitHub answered 2s ago
  deleting runner runner-01-ci-4-0000dead, which has no container

POOL  IDLE  SPARE  BUSY  STARTING  ENDING  ALL  FAILED  LABELS
ci     1/1    0/1     1         1       0  3/8       2  self-hosted, ci
fuzz   0/1    0/0     0         0       1  1/2       0  self-hosted, fuzz

RUNNER  STATE     FOR     AGE     JOB OR NAME
ci-1    busy      1m 1s   1h 1m   CI / test (ubuntu, stable)
                                  https://github.com/acme/widgets/actions/runs/17204512345
ci-2    idle      3m 20s  3m 32s  runner-01-ci-2-0a1b2c3d
ci-3    booting   400ms   400ms
fuzz-1  retiring  1s      1day    ends with idle_aged

ENDED   VERDICT               AGO     JOB     MEMORY   EXIT
ci-4    job_done              1m 12s  5m 32s  1.5 GiB  status 0
fuzz-2  registration_timeout  1m 12s  no job           no record
";
        assert_eq!(render(&busy_host()), wanted);
    }

    #[test]
    fn every_line_without_a_url_or_a_reason_fits_80_columns() {
        for line in render(&busy_host()).lines() {
            assert!(line.len() <= 80 || line.contains("https://"), "{line}");
        }
    }

    #[test]
    fn a_host_without_pools_is_a_few_lines() {
        let status = Status {
            host: "box".into(),
            scope: "acme".into(),
            state: "drained".into(),
            closed: vec!["draining, until `runner-controller undrain`".into()],
            ..Status::default()
        };
        assert_eq!(
            render(&status),
            "box at acme: drained, healthy\n  \
             no new runners: draining, until `runner-controller undrain`\n  \
             GitHub has not answered yet\n"
        );
    }
}
