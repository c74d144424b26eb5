//! `cargo bench-scale`: measures many runners on one host beside as many bare containers.
//!
//! Each part prepares the host, and leaves it empty. Processor time is that of control groups of the test host, so the
//! benchmark itself and other programs of the machine do not count.

mod burst;
mod crowd;
mod many;
mod memory;
mod parts;
mod rate;
mod restart;
mod turnaround;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::daemon;
use super::figures::{self, Figure};
use super::stamps::Collector;
use crate::bed::{Bed, note};
use crate::binaries::{self, Binaries, Profile};
use crate::lab::Lab;

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Boot many containers from nothing, and count the memory of idle ones
    Crowd,
    /// Start the daemon while many runners live
    Restart,
    /// Run quick jobs over four slots, and count the processor time of each by part
    Rate,
    /// Boot the next runner after one that left much behind
    Turnaround,
    /// Queue 40 jobs at once over 10 slots
    Burst,
}

/// Options of the benchmark.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Only this part; can be given several times
    #[arg(long, value_enum)]
    pub part: Vec<Part>,
    /// Containers at once of the part crowd
    #[arg(long, default_value_t = 40)]
    pub containers: u16,
    /// Rounds of the part crowd, the daemon's and the floor's in turns
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Living runners of the part restart
    #[arg(long, default_value_t = 200)]
    pub living: u16,
    /// Starts of the daemon in the part restart
    #[arg(long, default_value_t = 15)]
    pub starts: usize,
    /// Quick jobs of the part rate
    #[arg(long, default_value_t = 200)]
    pub jobs: usize,
    /// Turns of the part turnaround
    #[arg(long, default_value_t = 15)]
    pub turns: usize,
    /// Bursts of the part burst
    #[arg(long, default_value_t = 5)]
    pub bursts: usize,
    /// Write figures and samples here
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Options {
    fn parts(&self) -> &[Part] {
        if self.part.is_empty() {
            Part::value_variants()
        } else {
            &self.part
        }
    }
}

/// Runs the benchmark; true if every goal is reached.
pub fn bench(options: &Options) -> Result<bool> {
    let bed = Bed::open()?;
    note("building the release binaries");
    let binaries = Binaries::build(Profile::Release)?;
    let stamped = binaries::build_stamped_listener()?;
    let lab = Lab::up(&bed, binaries)?;
    lab.reset()?;
    let load = daemon::quiet_load()?;
    let collector = Collector::start(lab.host())?;
    let mut figures: Vec<Figure> = Vec::new();
    let mut facts = Vec::new();
    for part in options.parts() {
        figures.extend(match part {
            Part::Crowd => {
                let count = many::carried(options.containers)?;
                facts.push(("containers", json!(count)));
                crowd::figures(&lab, count, options.rounds)?
            }
            Part::Restart => {
                let count = many::carried(options.living)?;
                facts.push(("living", json!(count)));
                restart::figures(&lab, count, options.starts)?
            }
            Part::Rate => rate::figures(&lab, options.jobs)?,
            Part::Turnaround => turnaround::figures(&lab, &collector, &stamped, options.turns)?,
            Part::Burst => burst::figures(&lab, &collector, &stamped, options.bursts)?,
        });
        lab.reset()?;
    }
    figures::report(&figures, ABOUT, options.json.as_deref(), || {
        document(load, facts)
    })
}

/// Explanation of the figures, printed below the table.
const ABOUT: &str = "\
Processor time is that of the test host's control groups. The floor is as many bare containers in units with the same
properties, in turns with ours in the same run. Memory is that of idle containers, divided by their number.";

fn document(load: f64, facts: Vec<(&str, Value)>) -> Result<Value> {
    let mut document = json!({
        "version": 1,
        "machine": daemon::machine()?,
        "load_before": load,
        "load_after": daemon::load()?,
        "clock": "CLOCK_REALTIME",
    });
    for (name, fact) in facts {
        document[name] = fact;
    }
    Ok(document)
}
