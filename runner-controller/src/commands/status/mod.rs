//! `status`, also called `runner-status`.

mod text;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

use crate::clock::unix_ms;
use crate::commands::common::{NOT_IN_TIME, api_socket, block_on};
use crate::http::client;
use crate::status::{DaemonState, PhaseKind, PoolStatus, SlotId, Status};
use crate::terminal;
use crate::view::health;

/// Interval between two looks at the status during a wait.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Exit status for a host that is not healthy.
const NOT_HEALTHY: u8 = 1;
/// Exit status for a host whose daemon does not answer.
const NO_ANSWER: u8 = 2;

/// Form and extent of the status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusOptions {
    /// Print the document as JSON.
    pub json: bool,
    /// Show one pool alone.
    pub pool: Option<String>,
    /// Show every ended runner that the document has.
    pub all: bool,
}

/// Prints the daemon's status as text or as JSON. The exit status of the text tells the health: 0 for a healthy
/// host, 1 for one with problems, 2 without an answer.
pub fn status(config: &Path, options: &StatusOptions) -> anyhow::Result<ExitCode> {
    let status = match block_on(client::status(&api_socket(config)))? {
        Ok(status) => status,
        Err(error) => {
            // The exit status is the answer, so this is not the program's own failure.
            let error = anyhow::Error::new(error);
            stdio::error(format_args!("runner-controller: {error:#}"));
            return Ok(ExitCode::from(NO_ANSWER));
        }
    };
    if options.json {
        let text = serde_json::to_string_pretty(&status)?;
        stdio::print_line(terminal::plain_json(&text))?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_healthy = health(&status).healthy;
    let mut status = terminal::plain_document(&status.at(unix_ms()))?;
    if let Some(pool) = &options.pool {
        keep_pool(&mut status, pool)?;
    }
    stdio::print(text::render(&status, options.all))?;
    Ok(if is_healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_HEALTHY)
    })
}

/// Removes the other pools and their ended runners from a status.
fn keep_pool(status: &mut Status, name: &str) -> anyhow::Result<()> {
    if status.pool(name).is_none() {
        let names: Vec<&str> = status.pools.iter().map(|pool| pool.name.as_str()).collect();
        bail!(
            "no pool is named {name}; this host has {}",
            names.join(", ")
        );
    }
    status.pools.retain(|pool| pool.name == name);
    let is_kept = |slot: &SlotId| slot.pool.as_str() == name;
    status.recent.retain(|ended| is_kept(&ended.slot));
    Ok(())
}

/// Waits until the host takes jobs, then prints the status. Waits for a daemon that restarts, too.
pub fn wait_until_ready(config: &Path, limit: Duration) -> anyhow::Result<ExitCode> {
    let end = Instant::now() + limit;
    let ready = block_on(async {
        let mut reported = Vec::new();
        loop {
            // The configuration is read anew each time, because a deploy may change it meanwhile.
            let obstacles = match client::status(&api_socket(config)).await {
                Ok(status) => match obstacles(&status) {
                    obstacles if obstacles.is_empty() => return Some(status),
                    obstacles => obstacles,
                },
                Err(error) => vec![error.to_string()],
            };
            if obstacles != reported {
                let line = obstacles.join("; ");
                stdio::error(format_args!("waiting: {}", terminal::plain(&line)));
                reported = obstacles;
            }
            if Instant::now() >= end {
                stdio::error(format_args!(
                    "not ready within {}",
                    humantime::format_duration(limit)
                ));
                return None;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    })?;
    let Some(status) = ready else {
        return Ok(ExitCode::from(NOT_IN_TIME));
    };
    // The exit status answers the caller, whether or not this text has a reader.
    stdio::progress(text::render(&terminal::plain_document(&status)?, false).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Returns what keeps the host from taking jobs. Stricter than the host's health: a drained host is
/// healthy, and so is one that has just started.
fn obstacles(status: &Status) -> Vec<String> {
    let mut obstacles = health(status).reasons;
    if status.state != DaemonState::Running {
        obstacles.push(format!("the host is {}", status.state));
    }
    obstacles.extend(status.closed.iter().cloned());
    for scope in status.scopes().iter() {
        if scope.github.last_ok_unix_ms.is_none() {
            let of = scope.name.as_ref().map(|name| format!(" for scope {name}"));
            let of = of.unwrap_or_default();
            obstacles.push(format!("GitHub has not answered{of} yet"));
        }
    }
    if obstacles.is_empty() {
        obstacles.extend(status.pools.iter().filter_map(idle_obstacle));
    }
    obstacles
}

/// Returns an obstacle if the pool has room for a job and no idle runner to take it.
fn idle_obstacle(pool: &PoolStatus) -> Option<String> {
    let is_full_of_jobs = pool.count(PhaseKind::Busy) >= u64::from(pool.wanted.max);
    let is_ready = pool.wanted.idle == 0 || pool.count(PhaseKind::Idle) > 0 || is_full_of_jobs;
    (!is_ready).then(|| format!("pool {} has no idle runner yet", pool.name))
}

/// Checks for [`crate::outside`] that no status puts a control character on the terminal, as text or
/// as JSON, and that the JSON keeps its value.
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "a panic is how the check fails")]
pub(crate) fn try_status(status: &Status) {
    let safe = terminal::plain_document(status).expect("a status");
    let jobs = safe
        .demand
        .as_ref()
        .map(|demand| super::jobs::render(demand, safe.at_unix_ms));
    let text = text::render(&safe, true) + &jobs.unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{GitHubStatus, Wanted};

    fn running() -> Status {
        Status {
            state: DaemonState::Running,
            github: GitHubStatus {
                last_ok_unix_ms: Some(8_000),
                ..GitHubStatus::default()
            },
            ..Status::default()
        }
    }

    #[test]
    fn a_host_without_problems_takes_jobs() {
        assert!(obstacles(&running()).is_empty());
    }

    #[test]
    fn a_drained_host_takes_no_jobs() {
        let drained = Status {
            state: DaemonState::Drained,
            ..running()
        };
        assert_eq!(obstacles(&drained), ["the host is drained"]);
    }

    #[test]
    fn a_host_with_closed_admission_takes_no_jobs() {
        let full = Status {
            closed: vec!["the disk is full".into()],
            ..running()
        };
        assert_eq!(obstacles(&full), ["the disk is full"]);
    }

    #[test]
    fn a_host_that_github_refuses_takes_no_jobs() {
        let mut refused = running();
        refused.github.last_ok_unix_ms = None;
        refused.github.error = Some("401".into());
        assert_eq!(
            obstacles(&refused),
            ["GitHub: 401", "GitHub has not answered yet"]
        );
    }

    #[test]
    fn a_pool_takes_jobs_with_an_idle_runner_and_needs_none_when_it_is_full_of_jobs() {
        let pool = |phases: &[(PhaseKind, u64)]| Status {
            pools: vec![PoolStatus {
                name: "ci".into(),
                wanted: Wanted {
                    idle: 1,
                    spare: 0,
                    max: 2,
                    ..Wanted::default()
                },
                phases: phases.iter().copied().collect(),
                ..PoolStatus::default()
            }],
            ..running()
        };
        let booting = obstacles(&pool(&[(PhaseKind::Booting, 2)]));
        assert_eq!(booting, ["pool ci has no idle runner yet"]);
        assert!(obstacles(&pool(&[(PhaseKind::Idle, 1), (PhaseKind::Busy, 1)])).is_empty());
        assert!(obstacles(&pool(&[(PhaseKind::Busy, 2)])).is_empty());
    }
}
