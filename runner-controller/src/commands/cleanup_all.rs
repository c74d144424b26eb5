//! `cleanup-all-containers`: destroys every container and checks that nothing is left.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::unistd::Uid;
use tokio::time::Instant;

use super::cleanup_github;
use super::common::{block_on, confirm};
use crate::clock;
use crate::config::{self, Config};
use crate::http::client::{self, ClientError};
use crate::privileged::{self, RootError};
use crate::status::{DaemonState, RunnerStatus, Status};
use crate::world::chain;

/// Interval between two looks at the daemon's progress.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Destroys every container of this host, jobs included, and deregisters their runners.
pub fn cleanup_all_containers(
    config_path: &Path,
    yes: bool,
    stay_down: bool,
) -> anyhow::Result<()> {
    let config = config::load(config_path)?;
    if !Uid::effective().is_root() {
        bail!(
            "cannot remove what containers leave on the host: permission denied; run this as root"
        );
    }
    let question = format!(
        "Destroy every container of {} and the jobs that run in them?",
        config.host
    );
    if !confirm(&question, yes)? {
        stdio::progress("Nothing was destroyed.");
        return Ok(());
    }
    // For the report alone, so a failure does not matter.
    let before = privileged::leftovers(&config).unwrap_or_default();
    let number = clock::unix_ms();
    block_on(async {
        let socket = config.api_socket();
        match client::command(
            &socket,
            &format!("clear?number={number}&refills={}", !stay_down),
        )
        .await
        {
            Ok(()) => {
                wait_for_daemon(&config, number).await?;
                // The daemon ended every runner and starts none. This removes what older ones left.
                report(&privileged::sweep_all(&config));
            }
            Err(error) if error.is_absent() => clear_without_daemon(&config).await?,
            Err(ClientError::Silent) => bail!(
                "the daemon runs but does not answer; \
                 stop it with `systemctl stop runner-controller` and run this again"
            ),
            Err(error) => return Err(error.into()),
        }
        verify(&config)?;
        if !before.is_empty() {
            stdio::progress(format_args!("Removed: {}.", privileged::count(&before)));
        }
        if stay_down {
            stdio::progress("No runner starts until `runner-controller undrain`.");
            return Ok(());
        }
        match client::command(&socket, &format!("refill?number={number}")).await {
            Ok(()) => stdio::progress(after_refill(&client::status(&socket).await?)),
            Err(error) if error.is_absent() => {
                stdio::progress("No runner starts, because the daemon is not running.");
            }
            Err(error) => return Err(error).context("cannot let the pools refill"),
        }
        Ok(())
    })?
}

/// Returns what happens to the pools after this command.
fn after_refill(status: &Status) -> &'static str {
    match status.state {
        DaemonState::Clearing | DaemonState::Cleared => {
            "Another clean-up was requested meanwhile, and decides when the pools refill."
        }
        DaemonState::Starting
        | DaemonState::Running
        | DaemonState::Observing
        | DaemonState::Draining
        | DaemonState::Drained => "The pools refill.",
    }
}

/// Progress of the clearing with this number, from one status.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// No runner was left.
    Done,
    /// Runners and registrations that are left.
    Waiting(Vec<String>),
    /// An operator let the pools refill before.
    Ended,
}

fn progress(status: &Status, number: u64) -> Progress {
    match status.state {
        _ if status.clearing.done >= number => Progress::Done,
        DaemonState::Running
        | DaemonState::Observing
        | DaemonState::Draining
        | DaemonState::Drained => Progress::Ended,
        DaemonState::Starting | DaemonState::Clearing | DaemonState::Cleared => {
            let runners = status.runners().map(RunnerStatus::machine);
            let strays = status.strays.iter().map(|name| format!("{name} at GitHub"));
            Progress::Waiting(runners.chain(strays).collect())
        }
    }
}

/// Waits until the daemon, which starts nothing any more, has ended and deregistered every runner.
async fn wait_for_daemon(config: &Config, number: u64) -> anyhow::Result<()> {
    let stop = config
        .pools
        .iter()
        .map(|pool| pool.timeouts.stop)
        .max()
        .unwrap_or_default();
    // A runner with a job gets SIGTERM, and SIGKILL when its stop timeout is over.
    let end = Instant::now() + 2 * stop + Duration::from_mins(1);
    let mut reported = String::new();
    loop {
        let status = client::status(&config.api_socket()).await?;
        let left = match progress(&status, number) {
            Progress::Done => return Ok(()),
            Progress::Ended => bail!(
                "cannot remove all containers: another operator ended the clean-up with `drain` or `undrain`"
            ),
            Progress::Waiting(left) => left.join(", "),
        };
        if left != reported {
            stdio::progress(format_args!("waiting: {left}"));
            reported = left;
        }
        if Instant::now() >= end {
            let github = status
                .github
                .error
                .map(|error| format!(" (GitHub: {error})"))
                .unwrap_or_default();
            bail!(
                "cannot remove {reported}: not gone in time{github}; \
                 no runner starts until `runner-controller undrain`"
            );
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Ends units, sweeps slots and deletes registrations without a daemon. Failures are reported, and
/// the rest goes on.
async fn clear_without_daemon(config: &Config) -> anyhow::Result<()> {
    stdio::progress("The daemon is not running, so this command ends the containers itself.");
    let mut failures = privileged::end_units(config);
    failures.extend(privileged::sweep_all(config));
    report(&failures);
    // The host is clean without GitHub, too. The next daemon deletes the registrations that are left.
    if let Err(error) = cleanup_github::delete_all(config).await {
        stdio::error(format_args!(
            "cannot delete the runners at GitHub: {error:#}; run cleanup-github-runners later"
        ));
    }
    Ok(())
}

fn report(failures: &[RootError]) {
    for failure in failures {
        stdio::error(chain(failure));
    }
}

/// Fails if anything of our containers is left on the host.
fn verify(config: &Config) -> anyhow::Result<()> {
    let left = privileged::leftovers(config).context("cannot check for leftovers")?;
    if left.is_empty() {
        stdio::progress(
            "Nothing is left: no units, machines, mounts, links, directories, layers, loop devices or control groups.",
        );
        return Ok(());
    }
    let left: Vec<String> = left.iter().map(ToString::to_string).collect();
    bail!("still there after the clean-up: {}", left.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::ClearingStatus;

    #[test]
    fn a_clearing_is_done_although_another_command_let_the_pools_refill() {
        let status = |state, done| Status {
            state,
            clearing: ClearingStatus {
                done,
                ..ClearingStatus::default()
            },
            ..Status::default()
        };
        let waiting = Progress::Waiting(Vec::new());
        assert_eq!(progress(&status(DaemonState::Clearing, 4), 5), waiting);
        assert_eq!(
            progress(&status(DaemonState::Cleared, 5), 5),
            Progress::Done
        );
        assert_eq!(
            progress(&status(DaemonState::Running, 6), 5),
            Progress::Done
        );
        assert_eq!(
            progress(&status(DaemonState::Running, 4), 5),
            Progress::Ended
        );
    }
}
