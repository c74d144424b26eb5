//! `apply`: brings this host to its configuration, while jobs run.

mod pools;
mod steps;

use std::fs::{File, create_dir_all};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;
use tokio::time::Instant;

use super::common::block_on;
use super::host_check;
use crate::cli::NAMES;
use crate::config::{Config, Mistakes};
use crate::http::client;
use crate::status::Status;
use crate::view::health;
use crate::{hostfiles, privileged};
use pools::RemovedPool;

/// File that NixOS makes. There, the host files are part of the system.
const NIXOS: &str = "/etc/NIXOS";
/// Lock that lets only one `apply` change the host.
const LOCK: &str = "/run/lock/runner-controller-apply.lock";
/// Maximum time for the new daemon's first answer, and for runners of removed pools that have no job.
const PATIENCE: Duration = Duration::from_mins(1);
/// Interval between two looks at the status.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Checks the configuration and this host, installs the host files, restarts firewall and daemon, and
/// removes what removed pools left.
///
/// Changes nothing if the check finds a mistake. Every step may be repeated, so the command can be run
/// again after a failure. No job and no runner ends, unless its pool or its settings were removed.
pub fn apply(config_path: &Path, binary: Option<PathBuf>) -> anyhow::Result<()> {
    if !Uid::effective().is_root() {
        bail!("cannot install files: permission denied; run this as root");
    }
    if is_nixos() {
        bail!(
            "cannot install files: this host is NixOS, whose module does it; run `nixos-rebuild switch`"
        );
    }
    // Root's programs must accept the file as well.
    let config = privileged::read_config(config_path)?;
    let _lock = lock()?;
    let found = host_check::lasting(&config, config_path);
    report_notes(&found.notes);
    refuse_mistakes(config_path, found.mistakes)?;

    let program = binary.map_or_else(std::env::current_exe, Ok)?;
    install(&config, config_path, &program)?;
    steps::prepare_host()?;
    steps::restart_services()?;
    let status = block_on(await_daemon(&config))??;
    let status = remove_pools(&config, status)?;
    report(&status);
    let found = host_check::correctable(&config);
    report_notes(&found.notes);
    refuse_mistakes(config_path, found.mistakes)
}

/// Returns true on NixOS, where the host files are part of the system.
pub(super) fn is_nixos() -> bool {
    Path::new(NIXOS).exists()
}

/// Takes the lock, without waiting for another `apply`.
fn lock() -> anyhow::Result<Flock<File>> {
    let file = create_dir_all(Path::new(LOCK).parent().unwrap_or(Path::new("/")))
        .and_then(|()| File::create(LOCK))
        .with_context(|| format!("cannot create {LOCK}"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| error)
        .with_context(|| format!("cannot lock {LOCK}: another `apply` runs"))
}

fn report_notes(notes: &[String]) {
    for note in notes {
        stdio::progress(format_args!("note: {note}"));
    }
}

fn refuse_mistakes(file: &Path, list: Vec<crate::config::Mistake>) -> anyhow::Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    Err(Mistakes {
        file: file.to_owned(),
        list,
    }
    .into())
}

/// Writes the host files and removes those of earlier versions.
fn install(config: &Config, config_path: &Path, program: &Path) -> anyhow::Result<()> {
    let root = Path::new("/");
    let config_path = std::path::absolute(config_path)?;
    let program = std::path::absolute(program)?;
    let files = hostfiles::render(config, &program, &config_path);
    let names = NAMES.map(|(name, _)| name);
    let links = hostfiles::link_names(&names, &program, root)?;
    for path in hostfiles::install(&files, root)?.into_iter().chain(links) {
        stdio::progress(format_args!("installed {}", path.display()));
    }
    let obsolete = hostfiles::remove_obsolete(root)?;
    for path in &obsolete {
        stdio::progress(format_args!("removed {}", path.display()));
    }
    steps::stop_obsolete(&obsolete);
    Ok(())
}

/// Waits until the new daemon answers.
async fn await_daemon(config: &Config) -> anyhow::Result<Status> {
    let end = Instant::now() + PATIENCE;
    loop {
        match client::status(&config.api_socket()).await {
            Ok(status) => return Ok(status),
            Err(error) if Instant::now() >= end => {
                return Err(error).context("the new daemon does not answer");
            }
            Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

/// Removes the files of removed pools that have no runner any more, and reports the others.
///
/// The daemon ends runners without a job by itself. This waits for them.
fn remove_pools(config: &Config, mut status: Status) -> anyhow::Result<Status> {
    let removed = pools::find(config, Path::new("/"))?;
    if removed.is_empty() {
        return Ok(status);
    }
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end
        && removed
            .iter()
            .any(|pool| pool.has_runner_without_job(&status))
    {
        std::thread::sleep(POLL_INTERVAL);
        status = block_on(client::status(&config.api_socket()))??;
    }
    let alive = privileged::alive_slots().context("cannot list the units of runners")?;
    let (kept, gone): (Vec<RemovedPool>, Vec<RemovedPool>) = removed
        .into_iter()
        .partition(|pool| alive.iter().any(|slot| slot.pool == pool.name));
    for pool in &gone {
        for path in pool.remove()? {
            stdio::progress(format_args!("removed {}", path.display()));
        }
    }
    if !gone.is_empty() {
        steps::reload_units()?;
    }
    for pool in kept {
        stdio::progress(format_args!(
            "note: pool {} was removed and has running jobs; run this again after them, to remove its files",
            pool.name
        ));
    }
    Ok(status)
}

/// Reports the state of the host in one line, and its problems.
fn report(status: &Status) {
    let health = health(status);
    let verdict = if health.healthy {
        "healthy"
    } else {
        "NOT healthy"
    };
    let jobs = status
        .runners()
        .filter(|runner| runner.job.is_some())
        .count();
    let jobs = match jobs {
        0 => "no job runs".to_owned(),
        1 => "1 running job continues".to_owned(),
        jobs => format!("{jobs} running jobs continue"),
    };
    stdio::progress(format_args!(
        "{} at {}: {}, {verdict}; {jobs}",
        status.host, status.scope, status.state
    ));
    for reason in health.reasons.iter().chain(&status.closed) {
        stdio::progress(format_args!("  ! {}", crate::terminal::plain(reason)));
    }
    if !health.healthy {
        stdio::progress("run `runner-status --wait 5m` to wait until runners take jobs");
    }
}
