//! `drain` and `undrain`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::{block_on, socket};
use crate::http::client;
use crate::status::Status;

/// How often progress is asked for.
const EVERY: Duration = Duration::from_millis(250);

/// How long a daemon may be away that is restarted meanwhile: the drain outlives it.
const AWAY: Duration = Duration::from_mins(2);

/// What a drain still waits for, one line a container.
fn waits_for(status: &Status) -> Vec<String> {
    let runners = status.pools.iter().flat_map(|pool| &pool.runners);
    let line = |runner: &crate::status::RunnerStatus| match &runner.job {
        Some(job) => format!("{} runs {} of {}", runner.machine, job.job, job.repository),
        None => format!("{} is {}", runner.machine, runner.phase),
    };
    let strays = status
        .strays
        .iter()
        .map(|name| format!("GitHub still has {name}"));
    runners.map(line).chain(strays).collect()
}

/// How a drain stands, from one status.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// Nothing is left.
    Done,
    /// For these.
    Waits(Vec<String>),
    /// Somebody lets runners start again, so it never ends.
    Undone,
}

fn progress(status: &Status) -> Progress {
    let waits = waits_for(status);
    match status.state.as_str() {
        "running" => Progress::Undone,
        "draining" => Progress::Waits(waits),
        _ if waits.is_empty() => Progress::Done,
        _ => Progress::Waits(waits),
    }
}

/// The exit status of a drain that was not done in time.
const NOT_IN_TIME: u8 = 3;

/// Starts a drain; with `wait`, returns once nothing is left.
pub fn drain(config: &Path, wait: bool, timeout: Option<Duration>) -> anyhow::Result<ExitCode> {
    let socket = socket(config);
    block_on(async {
        client::command(&socket, "drain").await?;
        if !wait {
            stdio::progress("draining; jobs that run are left to finish");
            return Ok(ExitCode::SUCCESS);
        }
        let began = Instant::now();
        let end = timeout.map(|timeout| began + timeout);
        let (mut said, mut heard) = (Vec::new(), began);
        loop {
            match client::status(&socket).await {
                Ok(status) => {
                    heard = Instant::now();
                    let waits = match progress(&status) {
                        Progress::Done => {
                            stdio::progress(&status.state);
                            return Ok(ExitCode::SUCCESS);
                        }
                        Progress::Undone => anyhow::bail!("the drain was ended by an undrain"),
                        Progress::Waits(waits) => waits,
                    };
                    if waits != said {
                        stdio::progress(format_args!("waiting: {}", waits.join(", ")));
                        said = waits;
                    }
                }
                // It is restarted perhaps, and goes on draining then.
                Err(error) if heard.elapsed() >= AWAY => return Err(error.into()),
                Err(_) => {}
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                stdio::error(format_args!(
                    "not drained in time; waiting for {}",
                    said.join(", ")
                ));
                return Ok(ExitCode::from(NOT_IN_TIME));
            }
            tokio::time::sleep(EVERY).await;
        }
    })?
}

/// Lets new runners start again.
pub fn undrain(config: &Path) -> anyhow::Result<()> {
    let socket = socket(config);
    block_on(client::command(&socket, "undrain"))??;
    stdio::progress("running");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{JobStatus, PoolStatus, RunnerStatus};

    #[test]
    fn a_drain_waits_for_containers_and_registrations_and_tells_which() {
        let job = JobStatus {
            repository: "acme/widgets".into(),
            job: "build".into(),
            ..JobStatus::default()
        };
        let runner = |machine: &str, phase: &str, job: Option<JobStatus>| RunnerStatus {
            machine: machine.into(),
            phase: phase.into(),
            job,
            ..RunnerStatus::default()
        };
        let mut status = Status {
            state: "draining".into(),
            strays: vec!["box-ci-3-0000dead".into()],
            pools: vec![PoolStatus {
                runners: vec![
                    runner("ci-1", "busy", Some(job)),
                    runner("ci-2", "retiring", None),
                ],
                ..PoolStatus::default()
            }],
            ..Status::default()
        };
        let waits = [
            "ci-1 runs build of acme/widgets",
            "ci-2 is retiring",
            "GitHub still has box-ci-3-0000dead",
        ];
        let waits = Progress::Waits(waits.map(str::to_owned).to_vec());
        assert_eq!(progress(&status), waits);
        status.state = "drained".into();
        assert_eq!(progress(&status), waits);
        status.pools.clear();
        status.strays.clear();
        assert_eq!(progress(&status), Progress::Done);
        status.state = "running".into();
        assert_eq!(progress(&status), Progress::Undone);
    }
}
