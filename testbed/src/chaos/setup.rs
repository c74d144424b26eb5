//! Prepares the host for a run, waits until it has settled, and clears it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use github_sim::PlantedRunner;
use serde_json::{Value, json};
use status::{RunnerStatus, Status};

use crate::config::{Config, Image, Pool};
use crate::image;
use crate::lab::Lab;
use crate::readings::{is_settled, summary};
use crate::sim::planted_runner;
use crate::wait::{Seen, wait_until};

use super::disks;
use super::injector::retry;
use super::log::RunLog;

/// Timeout for the pools to be whole after the last repair. It covers the longest backoff that the faults
/// can cause, a job's lock that lapses, and a stray registration that must be two minutes old.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(6);
/// Time from the last renewal of a job's lock until it lapses. A renewal comes every minute.
const LOCK_MS: u64 = 90_000;
/// Number of runners of other hosts, so that the list has more than one page of a hundred.
const FOREIGN_RUNNERS: usize = 120;

/// Returns the configuration: a pool with layers in memory and a pool with layers on disk.
pub(super) fn config(lab: &Lab) -> Result<Config> {
    // A real listener pauses for half a minute and more. Here the next fault comes within seconds.
    let image = image::variant(lab.host(), "chaos", |root| {
        let dir = root.join("etc/systemd/system/github-runner.service.d");
        fs::create_dir_all(&dir)?;
        let text = "[Service]\nEnvironment=STANDIN_BACKOFF_MS=1500\n";
        Ok(fs::write(dir.join("backoff.conf"), text)?)
    })?;
    let pool = |name: &str, offset| Pool {
        image: Image::Directory(image.clone()),
        layer_size: "128 MiB".into(),
        memory: "512 MiB".into(),
        ..Pool::new(name, offset)
    };
    let mut config = Config::small(lab.sim().api_url());
    config.reconcile = "3s".into();
    config.pools = vec![
        Pool {
            min_idle: 3,
            max_runners: 6,
            ..pool("ci", 0)
        },
        Pool {
            min_spare: 0,
            layer: "disk",
            ..pool("big", 6)
        },
    ];
    Ok(config)
}

/// Prepares an empty host: disks, stand-in, foreign runners, daemon.
pub(super) fn prepare(lab: &Lab, config: &Config) -> Result<()> {
    lab.reset()?;
    disks::make(lab)?;
    lab.let_sim_remember()?;
    lab.sim().set(&settings())?;
    let foreign: Vec<PlantedRunner> = (0..FOREIGN_RUNNERS)
        .map(|number| PlantedRunner {
            labels: vec!["other".into()],
            ..planted_runner(&format!("elsewhere-ci-{number}-0a1b2c3d"))
        })
        .collect();
    lab.sim().plant(&foreign)?;
    lab.install(config)?;
    lab.start()?;
    lab.await_settled(Duration::from_mins(1)).map(drop)
}

/// Returns the stand-in's settings without faults. A dead listener's job is reassigned or failed in bounded
/// time.
fn settings() -> Value {
    json!({
        "lock_ms": LOCK_MS, "assignment_timeout_ms": 15_000, "offline_after_ms": 10_000,
        "list_lag_ms": 0, "paging_fault": "none", "idle_reap_ms": null,
    })
}

/// Clears the host for other tests.
pub fn clear(lab: &Lab) -> Result<()> {
    // This comes first, because a stand-in that forgets has nothing left to remove.
    lab.let_sim_forget()?;
    lab.reset()?;
    disks::remove(lab)
}

/// Waits until all jobs have ended and the pools are whole, and returns how long that took.
pub(super) fn settle(lab: &Lab, log: &RunLog) -> Result<Duration> {
    let start = Instant::now();
    retry("clear the stand-in's faults", || {
        lab.sim().clear_faults()?;
        lab.sim().set(&settings())
    })?;
    wait_until("jobs to end and pools to be whole", SETTLE_TIMEOUT, || {
        std::thread::sleep(Duration::from_millis(300));
        Ok(match unsettled(lab, log) {
            Ok(None) => Seen::Done(()),
            Ok(Some(why)) => Seen::NotYet(why),
            Err(error) => Seen::NotYet(format!("{error:#}")),
        })
    })?;
    Ok(start.elapsed())
}

/// Returns why the host is not settled, or `None` if it is.
fn unsettled(lab: &Lab, log: &RunLog) -> Result<Option<String>> {
    let open = log.classify_jobs(lab)?.open;
    if !open.is_empty() {
        return Ok(Some(format!(
            "{} jobs have not ended: {}",
            open.len(),
            open.join("; ")
        )));
    }
    let status = lab.look()?;
    // A backoff whose next attempt is due delays nothing. A full pool attempts nothing.
    let mut backoffs = status.pools.iter().flat_map(|pool| &pool.backoffs);
    let delayed = backoffs.any(|backoff| backoff.retry_in_ms > 0);
    if !is_settled(&status) || delayed || !status.closed.is_empty() || status.github.error.is_some()
    {
        return Ok(Some(format!(
            "{}; closed: {:?}",
            summary(&status),
            status.closed
        )));
    }
    unknown(lab, &status)
}

/// Returns registrations, machines or containers that differ from the daemon's status, or `None`.
fn unknown(lab: &Lab, status: &Status) -> Result<Option<String>> {
    let mut ours: Vec<&String> = status
        .runners()
        .filter_map(|runner| runner.runner.as_ref())
        .collect();
    let registered = lab.sim().registered()?;
    let mut theirs: Vec<&String> = registered.iter().collect();
    ours.sort();
    theirs.sort();
    if ours != theirs {
        return Ok(Some(format!(
            "GitHub lists {theirs:?}, the daemon {ours:?}"
        )));
    }
    let machines = lab.machines()?;
    let containers = lab.containers()?;
    let known: Vec<String> = status.runners().map(RunnerStatus::machine).collect();
    let odd = containers
        .iter()
        .find(|container| !known.contains(&container.machine) || container.state != "active");
    if odd.is_some() || containers.len() != known.len() || machines.len() != known.len() {
        return Ok(Some(format!(
            "the host has {containers:?} and {machines:?}, the daemon {known:?}"
        )));
    }
    Ok(None)
}
