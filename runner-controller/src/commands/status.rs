//! `status`, also called `runner-status`.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{block_on, socket};
use crate::http::{client, health};
use crate::status::{EndedStatus, PoolStatus, RunnerStatus, Status};
use crate::terminal;

/// Prints the status, for people or as JSON.
pub fn status(config: &Path, json: bool) -> anyhow::Result<()> {
    let socket = socket(config);
    let status = block_on(client::status(&socket))??;
    if json {
        let text = serde_json::to_string_pretty(&status)?;
        stdio::print_line(terminal::plain_json(&text))?;
    } else {
        stdio::print(render(&plain(&status)?))?;
    }
    Ok(())
}

/// The status with every text as a terminal may have it. Names and messages come from jobs, from
/// GitHub and from systemd; all were looked at on their way in, and this is the last door out.
fn plain(status: &Status) -> serde_json::Result<Status> {
    fn walk(value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(terminal::plain(&text).into_owned()),
            Value::Array(list) => list.into_iter().map(walk).collect(),
            Value::Object(map) => {
                let plain = |(key, value): (String, Value)| {
                    (terminal::plain(&key).into_owned(), walk(value))
                };
                map.into_iter().map(plain).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }
    serde_json::from_value(walk(serde_json::to_value(status)?))
}

/// What [`crate::outside`] tries: whatever a status says, its text has the lines we gave it and
/// nothing that commands a terminal.
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "to panic is how it tells")]
pub(crate) fn try_status(status: &Status) {
    let text = render(&plain(status).expect("a status"));
    for line in text.lines() {
        assert_eq!(terminal::plain(line), line);
    }
    let json = serde_json::to_string_pretty(status).expect("JSON");
    let json = terminal::plain_json(&json);
    assert_eq!(
        terminal::plain(&json.replace('\n', " ")),
        json.replace('\n', " ")
    );
    assert_eq!(
        &serde_json::from_str::<Status>(&json).expect("a status"),
        status
    );
}

/// How often is looked while waiting.
const EVERY: Duration = Duration::from_millis(500);
/// The exit status if all was not well in time.
const NOT_IN_TIME: u8 = 3;

/// Waits until all is well, then prints the status. A daemon that is being restarted is waited for.
pub fn await_well(config: &Path, limit: Duration) -> anyhow::Result<ExitCode> {
    let end = Instant::now() + limit;
    let well = block_on(async {
        let mut said = Vec::new();
        loop {
            // Anew each time: a deploy may bring another configuration meanwhile.
            let missing = match client::status(&socket(config)).await {
                Ok(status) => match what_is_missing(&status) {
                    missing if missing.is_empty() => return Some(status),
                    missing => missing,
                },
                Err(error) => vec![error.to_string()],
            };
            if missing != said {
                stdio::error(format_args!(
                    "waiting: {}",
                    terminal::plain(&missing.join("; "))
                ));
                said = missing;
            }
            if Instant::now() >= end {
                stdio::error(format_args!(
                    "not well within {}",
                    humantime::format_duration(limit)
                ));
                return None;
            }
            tokio::time::sleep(EVERY).await;
        }
    })?;
    let Some(status) = well else {
        return Ok(ExitCode::from(NOT_IN_TIME));
    };
    // The exit status is what was waited for, whether or not this text has a reader.
    stdio::progress(render(&plain(&status)?).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// What stands between a host and jobs. Stricter than its health: a host that is drained is healthy,
/// and one that has just started has not failed at anything yet.
fn what_is_missing(status: &Status) -> Vec<String> {
    let mut missing = health(status).reasons;
    if status.state != "running" {
        missing.push(format!("it is {}", status.state));
    }
    missing.extend(status.closed.iter().cloned());
    if status.github.last_ok_unix_ms.is_none() {
        missing.push("GitHub has not answered yet".into());
    }
    if missing.is_empty() {
        missing.extend(status.pools.iter().filter_map(nobody_waits));
    }
    missing
}

/// Says so if a job would find nobody, though there is room: whoever is there is on the way.
fn nobody_waits(pool: &PoolStatus) -> Option<String> {
    let count = |phase| pool.phases.get(phase).copied().unwrap_or(0);
    let taken = count("busy") >= u64::from(pool.wanted.max);
    let waited = pool.wanted.idle == 0 || count("idle") > 0 || taken;
    (!waited).then(|| format!("pool {}: no runner is idle yet", pool.name))
}

/// A duration with its two largest units.
fn span(millis: u64) -> String {
    let rounded = if millis < 60_000 {
        Duration::from_millis(millis / 100 * 100)
    } else {
        Duration::from_secs(millis / 1000)
    };
    let text = humantime::format_duration(rounded).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn runner_line(runner: &RunnerStatus) -> String {
    let what = match (&runner.job, &runner.cause) {
        (_, Some(cause)) => format!("because of {cause}"),
        (Some(job), None) if !job.run_id.is_empty() => {
            format!(
                "{} / {}  https://github.com/{}/actions/runs/{}",
                job.workflow, job.job, job.repository, job.run_id
            )
        }
        (Some(_), None) => "a job that did not say its name".to_owned(),
        (None, None) => runner.runner.clone().unwrap_or_default(),
    };
    format!(
        "  {:<13} {:<12} {:>12} {:>12}  {what}",
        runner.machine,
        runner.phase,
        span(runner.phase_ms),
        span(runner.age_ms)
    )
}

fn pool_text(pool: &PoolStatus) -> String {
    let count = |phase: &str| pool.phases.get(phase).copied().unwrap_or_default();
    let mut text = format!(
        "\npool {}  ({})\n  wanted: {} idle, {} spare, at most {}   now: {} idle, {} spare, {} busy, {} on the way   failed since start: {}\n",
        pool.name,
        pool.labels.join(", "),
        pool.wanted.idle,
        pool.wanted.spare,
        pool.wanted.max,
        count("idle"),
        count("spare"),
        count("busy"),
        count("booting") + count("minting") + count("registering") + count("retiring"),
        pool.failed,
    );
    for backoff in &pool.backoffs {
        let _ = writeln!(
            text,
            "  ! {} failed {} times, next try in {}: {}",
            backoff.failure,
            backoff.failures,
            span(backoff.retry_in_ms),
            backoff.reason
        );
    }
    if !pool.runners.is_empty() {
        let _ = writeln!(
            text,
            "  {:<13} {:<12} {:>12} {:>12}  JOB OR RUNNER",
            "CONTAINER", "STATE", "SINCE", "AGE"
        );
    }
    for runner in &pool.runners {
        text += &runner_line(runner);
        text.push('\n');
    }
    text
}

fn ended_line(ended: &EndedStatus, now: u64) -> String {
    let ago = span(now.saturating_sub(ended.ended_unix_ms));
    let job = ended
        .job_ms
        .map_or_else(|| "no job".to_owned(), |ms| format!("job {}", span(ms)));
    let memory = ended
        .memory_peak_bytes
        .map(|bytes| format!(", peak {}", crate::config::ByteSize(bytes)))
        .unwrap_or_default();
    let exit = ended.exit.as_deref().unwrap_or("no record");
    format!(
        "  {:<13} {:<20} {:>12} ago  {job}, {exit}{memory}",
        ended.machine, ended.verdict, ago
    )
}

/// The status for people.
fn render(status: &Status) -> String {
    let health = health(status);
    let mut text = format!(
        "{} at {}: {}, {}\n",
        status.host,
        status.scope,
        status.state,
        if health.healthy {
            "healthy"
        } else {
            "NOT healthy"
        }
    );
    for reason in &health.reasons {
        let _ = writeln!(text, "  ! {reason}");
    }
    for reason in &status.closed {
        let _ = writeln!(text, "  starts nothing new: {reason}");
    }
    let ok = status.github.last_ok_unix_ms.map_or_else(
        || "never yet".to_owned(),
        |at| format!("{} ago", span(status.at_unix_ms.saturating_sub(at))),
    );
    let _ = writeln!(text, "  GitHub last answered {ok}");
    for stray in &status.strays {
        let _ = writeln!(
            text,
            "  deleting a registration without a container: {stray}"
        );
    }
    for pool in &status.pools {
        text += &pool_text(pool);
    }
    if !status.recent.is_empty() {
        text += "\nended last\n";
    }
    for ended in status.recent.iter().take(8) {
        text += &ended_line(ended, status.at_unix_ms);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{GitHubStatus, JobStatus, Wanted};

    #[test]
    fn a_host_is_well_when_nothing_keeps_jobs_from_it() {
        let well = Status {
            state: "running".into(),
            github: GitHubStatus {
                last_ok_unix_ms: Some(8_000),
                ..GitHubStatus::default()
            },
            ..Status::default()
        };
        assert!(what_is_missing(&well).is_empty());
        let drained = Status {
            state: "drained".into(),
            ..well.clone()
        };
        assert_eq!(what_is_missing(&drained), ["it is drained"]);
        let full = Status {
            closed: vec!["the disk is full".into()],
            ..well.clone()
        };
        assert_eq!(what_is_missing(&full), ["the disk is full"]);
        let pool = |phases: &[(&str, u64)]| Status {
            pools: vec![PoolStatus {
                name: "ci".into(),
                wanted: Wanted {
                    idle: 1,
                    spare: 0,
                    max: 2,
                },
                phases: phases
                    .iter()
                    .map(|(phase, n)| ((*phase).to_owned(), *n))
                    .collect(),
                ..PoolStatus::default()
            }],
            ..well.clone()
        };
        // As many as there may be, and all of them boot.
        let said = what_is_missing(&pool(&[("booting", 2)]));
        assert_eq!(said, ["pool ci: no runner is idle yet"]);
        assert!(what_is_missing(&pool(&[("idle", 1), ("busy", 1)])).is_empty());
        assert!(what_is_missing(&pool(&[("busy", 2)])).is_empty());
        let mut refused = well;
        refused.github.last_ok_unix_ms = None;
        refused.github.error = Some("401".into());
        assert_eq!(
            what_is_missing(&refused),
            ["GitHub: 401", "GitHub has not answered yet"]
        );
    }

    #[test]
    fn a_status_reads_like_this() {
        let job = JobStatus {
            repository: "acme/widgets".into(),
            workflow: "CI".into(),
            job: "test".into(),
            run_id: "7".into(),
            running_ms: 61_000,
        };
        let runner = RunnerStatus {
            machine: "ci-1".into(),
            phase: "busy".into(),
            age_ms: 3_700_000,
            phase_ms: 61_000,
            job: Some(job),
            ..RunnerStatus::default()
        };
        let pool = PoolStatus {
            name: "ci".into(),
            labels: vec!["self-hosted".into(), "ci".into()],
            wanted: Wanted {
                idle: 1,
                spare: 1,
                max: 1,
            },
            phases: [("busy".to_owned(), 1)].into(),
            runners: vec![runner],
            ..PoolStatus::default()
        };
        let status = Status {
            host: "runner-01".into(),
            scope: "acme/widgets".into(),
            state: "running".into(),
            at_unix_ms: 10_000,
            github: GitHubStatus {
                last_ok_unix_ms: Some(8_000),
                ..GitHubStatus::default()
            },
            pools: vec![pool],
            ..Status::default()
        };
        let text = render(&status);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "runner-01 at acme/widgets: running, healthy");
        assert_eq!(lines[1], "  GitHub last answered 2s ago");
        assert_eq!(
            lines[6],
            "  ci-1          busy                1m 1s        1h 1m  CI / test  https://github.com/acme/widgets/actions/runs/7"
        );
    }
}
