//! `cargo bench-life`: measures how fast runners follow each other, and the daemon's cost.
//!
//! Every time is the kernel's `CLOCK_REALTIME`, which the host and its containers share. The kernel stamps the
//! messages of systemd and of the daemon, and the runner sends its own stamps. The floor is a bare container.
//! It is measured in the same run, in turns with a runner.

pub mod against;
mod daemon;
pub mod demand;
mod figures;
mod floor;
pub mod network;
pub mod profiles;
pub mod scale;
mod side;
mod stamps;
mod start;
mod timeline;
mod usage;
mod versus;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, note};
use crate::binaries::{self, Binaries, CONTROLLER, Profile};
use crate::config::{self, Config};
use crate::journal;
use crate::lab::{DAEMON, Lab};
use crate::settle::await_listening;
use crate::sim::pool_job;

use figures::{Figure, Source, median};
use floor::Floor;
pub use stamps::{LISTENER_BEHIND, STAMPS};

use stamps::{Collector, Image};
use start::{SOON, begin};
use timeline::{LaterIn, Moment, SlotEvent, gaps};

/// Minimum number of pairs for a median that means something.
const PAIRS_MIN: usize = 15;

/// Options of the benchmark.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Write figures and samples here
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Runners of each kind, the daemon's and the floor's in turns; at least 15
    #[arg(long, default_value_t = 20)]
    pub pairs: usize,
    /// Quick jobs over four slots
    #[arg(long, default_value_t = 200)]
    pub jobs: usize,
    /// Time for which to watch the idle daemon
    #[arg(long, default_value = "125s", value_parser = humantime::parse_duration)]
    pub idle: Duration,
}

/// Runs the benchmark; true if every goal is reached.
pub fn bench(options: &Options) -> Result<bool> {
    ensure!(
        options.pairs >= PAIRS_MIN,
        "--pairs must be at least {PAIRS_MIN}, otherwise the medians mean nothing"
    );
    let bed = Bed::open()?;
    note("building the release binaries");
    let binaries = Binaries::build(Profile::Release)?;
    let stamped = binaries::build_stamped_listener()?;
    let size = fs::metadata(binaries.path(CONTROLLER)?)?.len();
    let lab = Lab::up(&bed, binaries)?;
    lab.reset()?;
    let load = daemon::quiet_load()?;

    let collector = Collector::start(lab.host())?;
    let mut figures = runners_beside_floor(&lab, &collector, &stamped, options.pairs)?;
    figures.extend(handover(&lab, &collector, &stamped, options.pairs)?);
    figures.extend(daemon::many_jobs(&lab, options.jobs, options.idle)?);
    figures.push(
        Figure::plain(
            "daemon's binary, stripped",
            "MB",
            Source::File,
            vec![daemon::megabytes(size)],
        )
        .at_most(15.0, ""),
    );
    lab.reset()?;

    figures::report(&figures, ABOUT_CLOCKS, options.json.as_deref(), || {
        facts(options, load)
    })
}

/// Explanation of the clocks, printed below the table.
const ABOUT_CLOCKS: &str = "\
Times are CLOCK_REALTIME of the one kernel. The floor's are the stamps of systemd's messages, from \"Starting\" to
\"Started\" and from \"Stopping\" to its end. Ours begin at the daemon's message before it calls systemd, and end at its
message that the unit is active and the config asked for. \"Runner's code\" and \"runner exit\" are sent by a program
that stands in the listener's place, starts it, and waits for it.";

fn one_pool(lab: &Lab, image: &str) -> Config {
    Config::small(lab.sim().api_url()).with("ci", |pool| {
        pool.image = config::Image::Directory(image.into());
    })
}

fn quick_job(lab: &Lab) -> Result<()> {
    let id = lab.sim().queue(&pool_job("quick", "ci", "true"))?;
    lab.sim().await_success(id, SOON).map(drop)
}

/// Returns all events since the mark, in order of time.
fn events_since(lab: &Lab, collector: &Collector, mark: &journal::Mark) -> Result<Vec<SlotEvent>> {
    let mut events = timeline::of_daemon(&journal::since(lab.host(), mark, DAEMON)?);
    events.extend(collector.take());
    events.sort_by_key(|event| event.at_us);
    Ok(events)
}

/// Measures runners and floor containers in turns.
fn runners_beside_floor(
    lab: &Lab,
    collector: &Collector,
    stamped: &Path,
    pairs: usize,
) -> Result<Vec<Figure>> {
    let image = Image::make(lab.host(), "bench-stamped", stamped, false)?;
    let config = one_pool(lab, image.path());
    begin(lab, &config)?;
    let floor = Floor::prepare(lab.host(), image.path(), "runner-ci@.service", 1)?;
    // The first container of each kind is not measured, because the page cache is still cold.
    floor.start_and_stop()?;
    quick_job(lab)?;
    await_listening(lab, SOON)?;
    collector.take();
    let mark = journal::mark(lab.host())?;
    note(&format!(
        "{pairs} runners and {pairs} floor containers, in turns"
    ));
    for _ in 0..pairs {
        floor.start_and_stop()?;
        quick_job(lab)?;
        await_listening(lab, SOON)?;
    }
    let (start, stop) = floor::times(&journal::spans(&journal::since(
        lab.host(),
        &mark,
        floor::UNITS,
    )?));
    let units = journal::spans(&journal::since(lab.host(), &mark, "runner-*@*.service")?);
    let events = events_since(lab, collector, &mark)?;
    drop(floor);
    lab.reset()?;
    drop(image);

    let active = units
        .iter()
        .filter_map(|unit| Some(timeline::millis(unit.started_us? - unit.starting_us)))
        .collect();
    let floor_start = median(&start);
    let floor_both = floor_start + median(&stop);
    let spare = gaps(&events, Moment::Starting, Moment::Spare, LaterIn::SameSlot);
    let again = gaps(&events, Moment::Exit, Moment::Spare, LaterIn::SameSlot);
    let ratio = |samples: &[f64], floor: f64| {
        format!(
            " (1× is the floor's {floor:.0}, this is {:.2}×)",
            median(samples) / floor
        )
    };
    let spare_is = ratio(&spare, floor_start);
    let again_is = ratio(&again, floor_both);
    Ok(vec![
        Figure::plain("floor: start to READY", "ms", Source::Systemd, start),
        Figure::plain("floor: stop to gone", "ms", Source::Systemd, stop),
        Figure::plain("our unit: start to active", "ms", Source::Systemd, active),
        Figure::plain("start call to spare", "ms", Source::Daemon, spare)
            .at_most(1.15 * floor_start, spare_is),
        Figure::plain(
            "config answered to runner's code",
            "ms",
            Source::DaemonAndRunner,
            gaps(&events, Moment::Delivered, Moment::Code, LaterIn::SameSlot),
        )
        .at_most(25.0, ""),
        Figure::plain(
            "runner exit to container gone",
            "ms",
            Source::DaemonAndRunner,
            gaps(&events, Moment::Exit, Moment::Ended, LaterIn::SameSlot),
        ),
        Figure::plain(
            "runner exit to a spare in its slot",
            "ms",
            Source::DaemonAndRunner,
            again,
        )
        .at_most(1.25 * floor_both, again_is),
        Figure::plain(
            "job told to next runner's code",
            "ms",
            Source::DaemonAndRunner,
            gaps(
                &events,
                Moment::JobStarted,
                Moment::Code,
                LaterIn::AnotherSlot,
            ),
        ),
    ])
}

/// Measures the time from a runner's exit until the code of the spare that replaces it runs. In this image the
/// exit is the first sign of a job. Otherwise the spare would be registered when the job starts, long before.
fn handover(lab: &Lab, collector: &Collector, stamped: &Path, pairs: usize) -> Result<Vec<Figure>> {
    let image = Image::make(lab.host(), "bench-silent", stamped, true)?;
    let config = one_pool(lab, image.path());
    begin(lab, &config)?;
    quick_job(lab)?;
    await_listening(lab, SOON)?;
    collector.take();
    let mark = journal::mark(lab.host())?;
    note(&format!("{pairs} exits with a spare waiting"));
    for _ in 0..pairs {
        quick_job(lab)?;
        await_listening(lab, SOON)?;
    }
    let events = events_since(lab, collector, &mark)?;
    lab.reset()?;
    drop(image);
    let mint = gaps(
        &events,
        Moment::Registering,
        Moment::Delivered,
        LaterIn::SameSlot,
    );
    let goal = 250.0 + median(&mint);
    Ok(vec![
        Figure::plain(
            "the stand-in's answer to a mint",
            "ms",
            Source::Daemon,
            mint,
        ),
        Figure::plain(
            "runner exit to the spare's code",
            "ms",
            Source::Runner,
            gaps(&events, Moment::Exit, Moment::Code, LaterIn::AnotherSlot),
        )
        .at_most(goal, " (250 + the stand-in's answer)"),
    ])
}

fn facts(options: &Options, load: f64) -> Result<Value> {
    Ok(json!({
        "version": 2,
        "machine": daemon::machine()?,
        "load_before": load,
        "clock": "CLOCK_REALTIME",
        "pairs": options.pairs,
        "jobs": options.jobs,
        "idle_seconds": options.idle.as_secs(),
    }))
}
