//! `cargo demo`: the main job, before your eyes, in two acts. Twenty jobs on two pools of a real host, a table
//! of where they ran, and what that proves. Then pools that follow GitHub's queue, on the same host.

mod account;
mod claims;
mod clock;
mod jobs;
mod second;
mod watch;

use anyhow::Result;

use crate::bed::{Bed, note};
use crate::binaries::{Binaries, Profile, Programs};
use crate::config::{Config, Pool};
use crate::image;
use crate::journal;
use crate::lab::{DAEMON, Lab};

use account::Ran;
use clock::{Clock, seconds};

/// Options of the demo.
#[derive(Debug, Clone)]
pub struct Options {
    /// Leave the host up, with its pools refilled, and say how to look around.
    pub keep: bool,
    /// Profile in which our programs are built.
    pub profile: Profile,
    /// Programs that the operator has.
    pub programs: Programs,
}

/// Runs the demo; true if every claim holds.
pub fn demo(options: &Options) -> Result<bool> {
    let clock = Clock::since_enter()?;
    let bed = Bed::open()?;
    note("building our programs");
    let binaries = Binaries::with(options.profile, &options.programs)?;
    let lab = Lab::up(&bed, binaries)?;
    lab.reset()?;
    let first = first_act(&lab, &clock)?;
    lab.reset()?;
    stdio::progress(format_args!(""));
    let second = second::act(&lab, &clock)?;
    if options.keep {
        lab.reset()?;
        lab.install(&config(lab.sim().api_url()))?;
        lab.start()?;
        stdio::progress(format_args!("{LOOK_AROUND}"));
    }
    Ok(first && second)
}

/// Runs twenty jobs on an empty host, and drains it; true if every claim holds.
fn first_act(lab: &Lab, clock: &Clock) -> Result<bool> {
    let config = config(lab.sim().api_url());
    lab.install(&config)?;
    let mark = journal::mark(lab.host())?;
    lab.sim()
        .queue_all(&jobs::all(&image::archives(lab.host())?))?;
    note("act 1: 20 jobs are queued, the daemon starts");
    lab.start()?;

    let jobs = watch::jobs(lab, clock)
        .inspect_err(|_| stdio::progress(format_args!("{}", lab.account())))?;
    let alive = claims::settled(lab);
    let working = lab.sim().stats()?;
    let daemon = claims::daemon_process(lab)?;
    let drain = claims::drain(lab);
    let drained = lab.sim().stats()?;

    let spans = journal::spans(&journal::since(lab.host(), &mark, "runner-*@*.service")?);
    let said = journal::since(lab.host(), &mark, DAEMON)?;
    let ran = account::spans_of(jobs, &spans, &said);
    stdio::progress(format_args!("\n{}", account::table(&ran)));
    stdio::progress(format_args!("{}\n", first_job(clock, &ran)));
    let claims = [
        claims::done(&ran),
        claims::different(&ran),
        alive,
        claims::isolated(&ran),
        drain,
        claims::calls_per_job(&ran, &config, &working, &drained),
        claims::turnaround(&ran),
        daemon,
    ];
    Ok(claims::show(lab, &claims))
}

/// Printed by `--keep`.
const LOOK_AROUND: &str = "
The host stays up, with the pools of act 1 refilled. In it:
  cargo run -qp testbed -- host exec runner-controller status
  cargo run -qp testbed -- host exec journalctl -fu runner-controller
  cargo run -qp testbed -- host exec runner-logs ci-1 -f
  cargo run -qp testbed -- host exec systemctl list-units runner-*
  cargo run -qp testbed -- host shell
Take it down:
  cargo run -qp testbed -- host down";

/// The first act: four slots in two pools: small quick jobs in memory, and compiles on disk.
fn config(api_url: &str) -> Config {
    let mut config = Config::small(api_url);
    config.pools.push(Pool {
        layer: "disk",
        layer_size: "4 GiB".into(),
        ..Pool::new("big", 2)
    });
    config
}

/// Returns the time of the first job in words. It is not a claim, because a first run builds everything.
fn first_job(clock: &Clock, ran: &[Ran]) -> String {
    match ran.iter().filter_map(|ran| ran.job.started_at).min() {
        Some(first) => format!(
            "The first job ran {:.1} s after enter (under 15 s is the goal for a second run).",
            seconds(first.saturating_sub(clock.entered_unix_ms))
        ),
        None => "No job ran.".into(),
    }
}
