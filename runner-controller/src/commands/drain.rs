//! `drain` and `undrain`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::common::{NOT_IN_TIME, api_socket, block_on};
use crate::http::client;
use crate::status::{DaemonState, JobStatus, RunnerStatus, Status};

/// Interval between two looks at the progress.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Maximum time without an answer from the daemon. A daemon that restarts meanwhile goes on draining.
const MAX_SILENCE: Duration = Duration::from_mins(2);

/// Progress of a drain, from one status.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// The last runner has ended.
    Done,
    /// Runners and registrations that are left, each in words.
    Waiting(Vec<String>),
    /// An operator undrained the host meanwhile, so the drain never ends.
    Undrained,
}

fn progress(status: &Status) -> Progress {
    let left = left(status);
    match status.state {
        DaemonState::Running | DaemonState::Observing => Progress::Undrained,
        DaemonState::Starting | DaemonState::Draining => Progress::Waiting(left),
        DaemonState::Drained | DaemonState::Clearing | DaemonState::Cleared if left.is_empty() => {
            Progress::Done
        }
        DaemonState::Drained | DaemonState::Clearing | DaemonState::Cleared => {
            Progress::Waiting(left)
        }
    }
}

/// Describes each runner and registration that a drain waits for.
fn left(status: &Status) -> Vec<String> {
    let describe = |runner: &RunnerStatus| match &runner.job {
        Some(JobStatus { note, .. }) => {
            format!("{} runs {} of {}", runner.slot, note.job, note.repository)
        }
        None => format!("{} is {}", runner.slot, runner.phase),
    };
    let runners = status.runners();
    let strays = status
        .strays
        .iter()
        .map(|name| format!("{name} is registered at GitHub"));
    runners.map(describe).chain(strays).collect()
}

/// Starts a drain. With `wait`, returns when the last runner has ended.
pub fn drain(config: &Path, wait: bool, timeout: Option<Duration>) -> anyhow::Result<ExitCode> {
    let socket = api_socket(config);
    block_on(async {
        client::command(&socket, "drain").await?;
        if !wait {
            stdio::progress("draining; running jobs finish");
            return Ok(ExitCode::SUCCESS);
        }
        let began = Instant::now();
        let end = timeout.map(|timeout| began + timeout);
        let (mut reported, mut heard) = (Vec::new(), began);
        loop {
            match client::status(&socket).await {
                Ok(status) => {
                    heard = Instant::now();
                    let left = match progress(&status) {
                        Progress::Done => {
                            stdio::progress(status.state);
                            return Ok(ExitCode::SUCCESS);
                        }
                        Progress::Undrained => {
                            anyhow::bail!("the drain was cancelled by `undrain`")
                        }
                        Progress::Waiting(left) => left,
                    };
                    if left != reported {
                        stdio::progress(format_args!("waiting: {}", left.join(", ")));
                        reported = left;
                    }
                }
                // The daemon may be restarting.
                Err(error) if heard.elapsed() >= MAX_SILENCE => return Err(error.into()),
                Err(_) => {}
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                stdio::error(format_args!(
                    "not drained in time; still waiting: {}",
                    reported.join(", ")
                ));
                return Ok(ExitCode::from(NOT_IN_TIME));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    })?
}

/// Ends a drain.
pub fn undrain(config: &Path) -> anyhow::Result<()> {
    let socket = api_socket(config);
    block_on(client::command(&socket, "undrain"))??;
    stdio::progress("running");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{JobNote, PhaseKind, PoolStatus};

    #[test]
    fn a_drain_waits_for_runners_and_registrations_and_names_each() {
        let job = JobStatus {
            note: JobNote {
                repository: "acme/widgets".into(),
                job: "build".into(),
                ..JobNote::default()
            },
            ..JobStatus::default()
        };
        let runner = |slot: &str, phase, job| RunnerStatus {
            job,
            ..RunnerStatus::new(slot.parse().unwrap(), phase)
        };
        let mut status = Status {
            state: DaemonState::Draining,
            strays: vec!["box-ci-3-0000dead".into()],
            pools: vec![PoolStatus {
                runners: vec![
                    runner("ci-1", PhaseKind::Busy, Some(job)),
                    runner("ci-2", PhaseKind::Retiring, None),
                ],
                ..PoolStatus::default()
            }],
            ..Status::default()
        };
        let left = [
            "ci-1 runs build of acme/widgets",
            "ci-2 is retiring",
            "box-ci-3-0000dead is registered at GitHub",
        ];
        let waiting = Progress::Waiting(left.map(str::to_owned).to_vec());
        assert_eq!(progress(&status), waiting);
        status.state = DaemonState::Drained;
        assert_eq!(progress(&status), waiting);
        status.pools.clear();
        status.strays.clear();
        assert_eq!(progress(&status), Progress::Done);
        status.state = DaemonState::Running;
        assert_eq!(progress(&status), Progress::Undrained);
    }
}
