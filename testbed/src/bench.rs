//! `cargo bench-life`: how fast lives follow each other, and what the daemon costs.
//!
//! Every time is the kernel's `CLOCK_REALTIME`, which the host and its containers share: what
//! systemd and the daemon say carries the kernel's stamp of the moment they said it, and the
//! runner sends stamps of its own. The floor is measured in the same run, pair by pair.

pub mod against;
mod daemon;
mod figures;
mod floor;
mod lives;
mod stamps;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, note};
use crate::binaries::{self, Binaries, CONTROLLER, Profile};
use crate::config::{self, Config};
use crate::journal;
use crate::lab::{DAEMON, Lab};
use crate::settle::await_listening;
use crate::sim::NewJob;

use figures::{Figure, Teller, median};
use floor::Floor;
use lives::{Event, In, Kind, gaps};
use stamps::{Collector, Image};

/// Where the stamps of the runner's program go: an address of the test host's internet.
pub const STAMPS: &str = "198.51.100.7:7007";
/// What the listener is called in an image in which the stamping program has its name.
pub const LISTENER_BEHIND: &str = "standin-listener";

/// Fewer say nothing.
const PAIRS_MIN: usize = 15;
/// Nothing here takes longer on a machine that is worth measuring on.
const SOON: Duration = Duration::from_secs(30);

/// What the caller may choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to write figures and samples.
    pub json: Option<PathBuf>,
    /// Lives of each kind.
    pub pairs: usize,
    /// Quick jobs over four slots.
    pub jobs: usize,
    /// How long the daemon is watched while it has nothing to do.
    pub idle: Duration,
}

/// Runs the benchmark; true if every goal is reached.
pub fn bench(options: &Options) -> Result<bool> {
    ensure!(
        options.pairs >= PAIRS_MIN,
        "--pairs: at least {PAIRS_MIN}, or the medians say nothing"
    );
    let bed = Bed::open()?;
    note("building what is shipped");
    let binaries = Binaries::build(Profile::Release)?;
    let stamped = binaries::build_stamped_listener()?;
    let size = fs::metadata(binaries.path(CONTROLLER)?)?.len();
    let lab = Lab::up(&bed, binaries)?;
    lab.reset()?;
    let load = daemon::load()?;
    if load > 0.5 {
        note(&format!(
            "the load of this machine is {load}: others work on it, and the figures will show it"
        ));
    }

    let collector = Collector::start(lab.host())?;
    let mut figures = lives_beside_floor(&lab, &collector, &stamped, options.pairs)?;
    figures.extend(handover(&lab, &collector, &stamped, options.pairs)?);
    figures.extend(daemon::many_jobs(&lab, options.jobs, options.idle)?);
    figures.push(
        Figure::plain(
            "daemon's binary, stripped",
            "MB",
            Teller::File,
            vec![daemon::megabytes(size)],
        )
        .at_most(15.0, ""),
    );
    lab.reset()?;

    println!("{}", figures::table(&figures));
    println!("{ABOUT_CLOCKS}");
    if let Some(path) = &options.json {
        let document = document(options, load, &figures)?;
        fs::write(path, serde_json::to_string_pretty(&document)?)
            .with_context(|| format!("write {}", path.display()))?;
        note(&format!("figures and samples are in {}", path.display()));
    }
    Ok(figures.iter().all(|figure| figure.reached != Some(false)))
}

/// Printed below the table.
const ABOUT_CLOCKS: &str = "\
Times are CLOCK_REALTIME of the one kernel. The floor's are the stamps of systemd's messages, from \"Starting\" to
\"Started\" and from \"Stopping\" to its end. Ours begin at the daemon's message before it calls systemd, and end at its
message that the unit is active and the config asked for. \"Runner's code\" and \"runner exit\" are sent by a program
that stands in the listener's place, starts it, and waits for it.";

/// Starts the daemon with this configuration and returns when its pools are as they should be.
fn begin(lab: &Lab, config: &Config) -> Result<()> {
    lab.install(config)?;
    // The one message that is needed and too chatty for every day.
    lab.host().write(
        &format!("/run/systemd/system/{DAEMON}.d/bench.conf"),
        b"[Service]\nEnvironment=RUST_LOG=info,runner_controller::controller=debug\n",
        0o644,
    )?;
    lab.host().run(&["systemctl", "daemon-reload"])?;
    lab.start()?;
    await_listening(lab, SOON).map(drop)
}

fn one_pool(lab: &Lab, image: &str) -> Config {
    Config::small(lab.sim().api_url()).with("ci", |pool| {
        pool.image = config::Image::Directory(image.into());
    })
}

fn quick_job(lab: &Lab) -> Result<()> {
    let id = lab.sim().queue(&NewJob::new("quick", "ci", "true"))?;
    lab.sim().await_success(id, SOON).map(drop)
}

/// Everything that happened since the mark, in order of time.
fn happened(lab: &Lab, collector: &Collector, mark: &journal::Mark) -> Result<Vec<Event>> {
    let mut events = lives::of_daemon(&journal::since(lab.host(), mark, DAEMON)?);
    events.extend(collector.take());
    events.sort_by_key(|event| event.at_us);
    Ok(events)
}

/// A life of ours and a life of the floor, in turns.
fn lives_beside_floor(
    lab: &Lab,
    collector: &Collector,
    stamped: &Path,
    pairs: usize,
) -> Result<Vec<Figure>> {
    let image = Image::make(lab.host(), "bench-stamped", stamped, false)?;
    let config = one_pool(lab, image.path());
    begin(lab, &config)?;
    let floor = Floor::prepare(lab.host(), image.path(), "runner-ci@.service")?;
    // Nobody's first life is measured: what it reads is not in memory yet.
    floor.live()?;
    quick_job(lab)?;
    await_listening(lab, SOON)?;
    collector.take();
    let mark = journal::mark(lab.host())?;
    note(&format!("{pairs} lives beside {pairs} of the floor"));
    for _ in 0..pairs {
        floor.live()?;
        quick_job(lab)?;
        await_listening(lab, SOON)?;
    }
    let (start, stop) = floor::times(&journal::spans(&journal::since(
        lab.host(),
        &mark,
        floor::UNIT,
    )?));
    let units = journal::spans(&journal::since(lab.host(), &mark, "runner-*@*.service")?);
    let events = happened(lab, collector, &mark)?;
    drop(floor);
    lab.reset()?;
    drop(image);

    let active = units
        .iter()
        .filter_map(|unit| Some(lives::millis(unit.started_us? - unit.starting_us)))
        .collect();
    let floor_start = median(&start);
    let floor_life = floor_start + median(&stop);
    let spare = gaps(&events, Kind::Starting, Kind::Spare, In::SameSlot);
    let again = gaps(&events, Kind::Exit, Kind::Spare, In::SameSlot);
    let ratio = |samples: &[f64], floor: f64| {
        format!(
            " (1× is the floor's {floor:.0}, this is {:.2}×)",
            median(samples) / floor
        )
    };
    let spare_is = ratio(&spare, floor_start);
    let again_is = ratio(&again, floor_life);
    Ok(vec![
        Figure::plain("floor: start to READY", "ms", Teller::Systemd, start),
        Figure::plain("floor: stop to gone", "ms", Teller::Systemd, stop),
        Figure::plain("our unit: start to active", "ms", Teller::Systemd, active),
        Figure::plain("start call to spare", "ms", Teller::Daemon, spare)
            .at_most(1.15 * floor_start, spare_is),
        Figure::plain(
            "config answered to runner's code",
            "ms",
            Teller::DaemonAndRunner,
            gaps(&events, Kind::Delivered, Kind::Code, In::SameSlot),
        )
        .at_most(25.0, ""),
        Figure::plain(
            "runner exit to container gone",
            "ms",
            Teller::DaemonAndRunner,
            gaps(&events, Kind::Exit, Kind::Ended, In::SameSlot),
        ),
        Figure::plain(
            "runner exit to a spare in its slot",
            "ms",
            Teller::DaemonAndRunner,
            again,
        )
        .at_most(1.25 * floor_life, again_is),
        Figure::plain(
            "job told to next runner's code",
            "ms",
            Teller::DaemonAndRunner,
            gaps(&events, Kind::JobStarted, Kind::Code, In::AnotherSlot),
        ),
    ])
}

/// From a runner's exit to the code of the spare that takes its place, in the case that the exit is
/// the first news: otherwise the spare was registered when the job started, long before.
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
    let events = happened(lab, collector, &mark)?;
    lab.reset()?;
    drop(image);
    let mint = gaps(&events, Kind::Registering, Kind::Delivered, In::SameSlot);
    let goal = 250.0 + median(&mint);
    Ok(vec![
        Figure::plain(
            "the stand-in's answer to a mint",
            "ms",
            Teller::Daemon,
            mint,
        ),
        Figure::plain(
            "runner exit to the spare's code",
            "ms",
            Teller::Runner,
            gaps(&events, Kind::Exit, Kind::Code, In::AnotherSlot),
        )
        .at_most(goal, " (250 + the stand-in's answer)"),
    ])
}

fn document(options: &Options, load: f64, figures: &[Figure]) -> Result<Value> {
    Ok(json!({
        "version": 1,
        "machine": daemon::machine()?,
        "load_before": load,
        "clock": "CLOCK_REALTIME",
        "pairs": options.pairs,
        "jobs": options.jobs,
        "idle_seconds": options.idle.as_secs(),
        "figures": figures,
    }))
}
