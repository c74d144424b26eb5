//! The start of a daemon on a host with many living runners.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use status::{PhaseKind, Status};

use super::many::{end_all, fast};
use crate::bed::note;
use crate::bench::daemon::Process;
use crate::bench::figures::{Figure, Source};
use crate::bench::start::{SOON, install_measured};
use crate::bench::timeline::millis;
use crate::config::Config;
use crate::lab::{DAEMON, Lab};
use crate::settle::await_listening;

/// Timeout for all runners together.
const ALL: Duration = Duration::from_mins(10);
/// Maximum time of a start, in milliseconds.
const START_MAX_MS: f64 = 500.0;
/// Measures starts of a daemon while so many runners live. Half of them listen, and half are spares.
pub(super) fn figures(lab: &Lab, count: u16, starts: usize) -> Result<Vec<Figure>> {
    let spares = count / 2;
    let mut config = Config::small(lab.sim().api_url()).with("ci", |pool| {
        (pool.min_idle, pool.min_spare, pool.max_runners) = (count - spares, spares, count);
    });
    fast(&mut config);
    install_measured(lab, &config)?;
    note(&format!(
        "{count} runners, then {starts} starts of the daemon"
    ));
    lab.start()?;
    await_listening(lab, ALL)?;
    let containers = lab.containers()?;
    let (mut ready, mut adopted, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..starts {
        lab.host().run(&["systemctl", "restart", DAEMON])?;
        let exec = stamp(lab, "ExecMainStartTimestampMonotonic")?;
        let at = lab.await_status("all runners to be adopted", SOON, |status| {
            is_whole(status, count).then(now_us)
        })??;
        ready.push(millis(stamp(lab, "ActiveEnterTimestampMonotonic")? - exec));
        adopted.push(millis(at - exec));
        cpu.push(Process::find(lab)?.cpu()?.as_secs_f64() * 1000.0);
        await_listening(lab, SOON)?;
    }
    ensure!(
        lab.containers()? == containers,
        "not every runner outlived the starts of the daemon"
    );
    let rss = Process::find(lab)?.rss_megabytes()?;
    end_all(lab)?;
    Ok(vec![
        Figure::plain("daemon's exec to READY", "ms", Source::Systemd, ready)
            .at_most(START_MAX_MS, ""),
        Figure::plain(
            "daemon's exec until all are adopted",
            "ms",
            Source::Daemon,
            adopted,
        )
        .at_most(START_MAX_MS, ""),
        Figure::plain("…its processor time", "ms", Source::Kernel, cpu),
        Figure::plain(
            "daemon's resident memory with them",
            "MB",
            Source::Kernel,
            vec![rss],
        ),
    ])
}

/// Returns true if the status has all runners, and each is a spare or registered.
fn is_whole(status: &Status, count: u16) -> bool {
    let mut runners = status.runners();
    status.runners().count() == usize::from(count)
        && runners.all(|runner| {
            matches!(
                runner.phase,
                PhaseKind::Spare | PhaseKind::Registering | PhaseKind::Idle
            )
        })
}

/// Returns a stamp of systemd about the daemon's unit, in microseconds of the clock of [`now_us`].
fn stamp(lab: &Lab, property: &str) -> Result<u64> {
    let text = lab.show(DAEMON, property)?;
    text.parse()
        .with_context(|| format!("{property} is not a number: {text:?}"))
}

/// Returns the time of `CLOCK_MONOTONIC` in microseconds.
fn now_us() -> Result<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(u64::try_from(now.as_micros())?)
}

#[cfg(test)]
mod tests {
    use status::{PoolStatus, RunnerStatus};

    use super::*;

    #[test]
    fn a_runner_that_boots_again_was_not_adopted() {
        let status = |phase| {
            let mut pool = PoolStatus::default();
            for (slot, phase) in [("ci-1", PhaseKind::Idle), ("ci-2", phase)] {
                pool.runners
                    .push(RunnerStatus::new(slot.parse().unwrap(), phase));
            }
            Status {
                pools: vec![pool],
                ..Status::default()
            }
        };
        assert!(is_whole(&status(PhaseKind::Spare), 2));
        assert!(!is_whole(&status(PhaseKind::Spare), 3));
        assert!(!is_whole(&status(PhaseKind::Booting), 2));
    }
}
