//! `cargo bench-demand`: measures how soon a waiting job has a runner, and the cost of GitHub's deliveries.
//!
//! A job's time begins when the stand-in for GitHub queues it, so it includes the stand-in's way to a delivery or to a
//! message of a scale set. It ends when the runner's code runs, as the runner's program tells. Both are the kernel's
//! `CLOCK_REALTIME`.

mod decision;
mod flood;
mod sender;
mod wakes;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::figures;
use super::stamps::{Collector, Image};
use super::{PAIRS_MIN, daemon};
use crate::bed::{Bed, note};
use crate::binaries::{self, Binaries, Profile};
use crate::lab::Lab;

/// Options of the benchmark.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Jobs that find a spare, for each source of demand; at least 15
    #[arg(long, default_value_t = 50)]
    pub samples: usize,
    /// Jobs that find no container, and floor containers in turns; at least 15
    #[arg(long, default_value_t = 20)]
    pub pairs: usize,
    /// Time of the flood of deliveries
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    pub flood: Duration,
    /// Write figures and samples here
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs the benchmark; true if every goal is reached.
pub fn bench(options: &Options) -> Result<bool> {
    ensure!(
        options.pairs.min(options.samples) >= PAIRS_MIN,
        "--pairs and --samples must be at least {PAIRS_MIN}, otherwise the medians mean nothing"
    );
    let bed = Bed::open()?;
    note("building the release binaries");
    let binaries = Binaries::build(Profile::Release)?;
    let stamped = binaries::build_stamped_listener()?;
    let decision = decision::Program::build()?;
    let lab = Lab::up(&bed, binaries)?;
    lab.reset()?;
    let load = daemon::quiet_load()?;

    let mut figures = decision.figures()?;
    let collector = Collector::start(lab.host())?;
    let image = Image::make(lab.host(), "bench-stamped", &stamped, false)?;
    let bench = wakes::Bench {
        lab: &lab,
        collector: &collector,
        image: &image,
    };
    figures.extend(bench.on_a_spare(&wakes::WEBHOOK, options.samples)?);
    figures.extend(bench.on_a_spare(&wakes::SCALE_SET, options.samples)?);
    figures.extend(bench.without_a_container(options.pairs)?);
    drop(image);
    figures.extend(flood::figures(&lab, options.flood)?);
    lab.reset()?;

    figures::report(&figures, ABOUT, options.json.as_deref(), || {
        facts(options, load)
    })
}

/// Explanation of the times, printed below the table.
const ABOUT: &str = "\
A job's time begins when the stand-in queues it, before it sends the delivery or the message, and ends when the runner's
code runs. The stand-in tells its times in milliseconds. The floor is a bare container's start, by systemd's messages. A
delivery's time is that of a sender in GitHub's place, from the connection to the answer.";

fn facts(options: &Options, load: f64) -> Result<Value> {
    Ok(json!({
        "version": 1,
        "machine": daemon::machine()?,
        "load_before": load,
        "load_after": daemon::load()?,
        "clock": "CLOCK_REALTIME",
        "samples": options.samples,
        "pairs": options.pairs,
        "flood_seconds": options.flood.as_secs(),
    }))
}
