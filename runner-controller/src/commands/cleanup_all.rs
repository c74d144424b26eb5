//! `cleanup-all-containers`: nothing of ours is left, and that is checked.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::unistd::Uid;
use tokio::time::Instant;

use super::{block_on, cleanup_github, confirm, load};
use crate::config::Config;
use crate::http::client::{self, ClientError};
use crate::launch;
use crate::world::chain;

/// How often a live daemon is asked for its progress.
const EVERY: Duration = Duration::from_millis(250);

/// Destroys every container, jobs included.
pub fn cleanup_all_containers(
    config_path: &Path,
    yes: bool,
    stay_down: bool,
) -> anyhow::Result<()> {
    let config = load(config_path)?;
    if !Uid::effective().is_root() {
        bail!("only root can see and remove everything that containers leave; run this as root");
    }
    let question = format!(
        "Destroy every container of {}, with the jobs that run in them?",
        config.host
    );
    if !confirm(&question, yes)? {
        stdio::progress("Nothing was destroyed.");
        return Ok(());
    }
    // Only to say afterwards how much it was.
    let before = launch::leftovers(&config).unwrap_or_default();
    block_on(async {
        let socket = config.api_socket();
        match client::command(&socket, "clear").await {
            Ok(()) => by_the_daemon(&config).await?,
            Err(error) if error.is_absent() => without_a_daemon(&config).await?,
            Err(ClientError::Silent) => bail!(
                "the daemon runs and does not answer; stop it with `systemctl stop runner-controller` and run this again"
            ),
            Err(error) => return Err(error.into()),
        }
        check(&config)?;
        if !before.is_empty() {
            stdio::progress(format_args!("Removed: {}.", launch::count(&before)));
        }
        if stay_down {
            stdio::progress("Nothing is started until `runner-controller undrain`.");
            return Ok(());
        }
        match client::command(&socket, "undrain").await {
            Ok(()) => stdio::progress("The pool refills."),
            Err(error) if error.is_absent() => {
                stdio::progress("The daemon is not running, so nothing is started.");
            }
            Err(error) => return Err(error).context("let the pool refill"),
        }
        Ok(())
    })?
}

/// The daemon has stopped admission; waits until it has ended and deregistered everything.
async fn by_the_daemon(config: &Config) -> anyhow::Result<()> {
    let stop = config
        .pools
        .iter()
        .map(|pool| pool.timeouts.stop)
        .max()
        .unwrap_or_default();
    // A runner with a job is asked first, and killed when its time to answer is over.
    let end = Instant::now() + 2 * stop + Duration::from_mins(1);
    let mut said = String::new();
    loop {
        let status = client::status(&config.api_socket()).await?;
        if status.state == "cleared" {
            return Ok(());
        }
        let runners = status
            .pools
            .iter()
            .flat_map(|pool| &pool.runners)
            .map(|runner| runner.machine.clone());
        let left: Vec<String> = runners
            .chain(status.strays.iter().map(|name| format!("{name} at GitHub")))
            .collect();
        let line = left.join(", ");
        if line != said {
            stdio::progress(format_args!("still there: {line}"));
            said = line;
        }
        if Instant::now() >= end {
            let why = status
                .github
                .error
                .map(|error| format!("; GitHub: {error}"))
                .unwrap_or_default();
            bail!(
                "not everything could be removed: {said}{why}. Nothing new is started until `runner-controller undrain`"
            );
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn without_a_daemon(config: &Config) -> anyhow::Result<()> {
    stdio::progress("The daemon is not running; ending its containers without it.");
    let mut failed = launch::end_units(config);
    failed.extend(launch::sweep_all(config));
    for why in &failed {
        stdio::error(format_args!("{}", chain(why)));
    }
    // Without GitHub the host is clean all the same, and the next daemon deletes what is left there.
    if let Err(error) = cleanup_github::delete_all(config).await {
        stdio::error(format_args!(
            "registrations may be left at GitHub; `cleanup-github-runners` deletes them: {error:#}"
        ));
    }
    Ok(())
}

fn check(config: &Config) -> anyhow::Result<()> {
    let left = launch::leftovers(config).context("look for what is left")?;
    if left.is_empty() {
        stdio::progress(
            "Nothing is left: no units, machines, mounts, links, directories, layers or loop devices.",
        );
        return Ok(());
    }
    let left: Vec<String> = left.iter().map(ToString::to_string).collect();
    bail!("this is left: {}", left.join(", "))
}
