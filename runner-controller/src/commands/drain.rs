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

/// The exit status of a drain that was not done in time.
const NOT_IN_TIME: u8 = 3;

/// Starts a drain; with `wait`, returns once nothing is left.
pub fn drain(config: &Path, wait: bool, timeout: Option<Duration>) -> anyhow::Result<ExitCode> {
    let socket = socket(config);
    block_on(async {
        client::command(&socket, "drain").await?;
        if !wait {
            println!("draining; jobs that run are left to finish");
            return Ok(ExitCode::SUCCESS);
        }
        let end = timeout.map(|timeout| Instant::now() + timeout);
        let mut said = Vec::new();
        loop {
            let status = client::status(&socket).await?;
            let waits = waits_for(&status);
            if waits.is_empty() && status.state != "draining" {
                println!("{}", status.state);
                return Ok(ExitCode::SUCCESS);
            }
            if waits != said {
                println!("waiting: {}", waits.join(", "));
                said = waits;
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                eprintln!("not drained in time; waiting for {}", said.join(", "));
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
    println!("running");
    Ok(())
}
