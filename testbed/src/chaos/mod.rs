//! `cargo chaos`: jobs flow over two pools of a real host, and things go wrong all the time, by a seed.
//!
//! ```text
//! plan      what goes wrong when: pure, by a seed     jobs    what runs meanwhile: pure, by a seed
//! strike    carries a fault out, and mends it         book    what became of the jobs: pure
//! watch     feeds jobs, and looks all the time        scene   the beginning, the end, and what is left
//! ```
//! The accounts that count are not the daemon's: the stand-in GitHub tells what became of each job,
//! and each job tells the stand-in that it ran, with the name of its own life. A job whose container we
//! killed has to be reported as failed; every other one has to end as it was written, having run once.

pub mod book;
mod disks;
pub mod jobs;
mod ledger;
pub mod plan;
mod prey;
mod report;
mod scene;
mod strike;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::bed::{Bed, note};
use crate::binaries::{Binaries, Profile};
use crate::config::Config;
use crate::lab::Lab;

use book::Whom;
use jobs::Stream;
use ledger::Ledger;
use plan::{Kind, Strike};
pub use report::Report;
pub use scene::clear;

/// What the caller may choose.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long things go wrong.
    pub length: Duration,
    /// What goes wrong.
    pub seed: u64,
    /// Leave the test host up.
    pub keep: bool,
    /// How our programs are built.
    pub profile: Profile,
}

/// Runs it; true if nothing happened that must never be.
pub fn chaos(options: Options) -> Result<bool> {
    let bed = Bed::open()?;
    let mut lab = Lab::up(&bed, Binaries::build(options.profile)?)?;
    let report = run(&mut lab, options.seed, options.length)?;
    println!("\n{}", report.table());
    if options.keep {
        note("the test host stays up; `cargo run -p testbed -- host shell` enters it");
    } else if report.holds() {
        clear(&lab)?;
    }
    Ok(report.holds())
}

/// Sets the scene and runs it.
pub fn run(lab: &mut Lab, seed: u64, length: Duration) -> Result<Report> {
    let config = scene::config(lab)?;
    scene::set(lab, &config)?;
    let strikes = plan::plan(seed, length);
    println!(
        "seed {seed}, {}: {} faults to come",
        humantime::format_duration(length),
        strikes.len()
    );
    let ledger = Ledger::new();
    let mut storm = Storm {
        ledger: &ledger,
        config: &config,
        stream: Stream::new(seed),
        paused: Duration::ZERO,
    };
    for part in strikes.split_inclusive(|strike| strike.kind == Kind::PowerCut) {
        match part.split_last() {
            Some((cut, before)) if cut.kind == Kind::PowerCut => {
                storm.blow(lab, before, cut.at);
                storm.cut_power(lab, cut)?;
            }
            _ => storm.blow(lab, part, length),
        }
    }
    ledger.say("no more faults", "");
    let settled = scene::settle(lab, &ledger);
    if let Err(error) = &settled
        && ledger.violated("not settled", &format!("{error:#}"))
    {
        println!("{}", lab.account());
    }
    // The watch may have missed the very last.
    watch::look(lab, &ledger, &config)?;
    let leaks = if settled.is_ok() {
        scene::leaks(lab, &config)?
    } else {
        Vec::new()
    };
    for (kind, names) in leaks.iter().filter(|(_, names)| !names.is_empty()) {
        ledger.violated(&format!("leaked {kind}"), &names.join("; "));
    }
    Ok(Report {
        seed,
        dealt: ledger.dealt(),
        book: ledger.reckon(lab)?,
        leaks,
        settled: settled.ok(),
        violations: ledger.violations(),
    })
}

/// The time in which things go wrong.
struct Storm<'a> {
    ledger: &'a Ledger,
    config: &'a Config,
    stream: Stream,
    /// How long power was away, which no plan knows.
    paused: Duration,
}

impl Storm<'_> {
    /// Carries out faults at their times, each on its own, and comes back at `until`, or when the last
    /// of them is mended.
    fn blow(&mut self, lab: &Lab, strikes: &[Strike], until: Duration) {
        let stop = AtomicBool::new(false);
        let (ledger, config, paused) = (self.ledger, self.config, self.paused);
        let stream = &mut self.stream;
        let sleep_until = |at: Duration| {
            std::thread::sleep((at + paused).saturating_sub(ledger.elapsed()));
        };
        std::thread::scope(|scope| {
            scope.spawn(|| watch::feed(lab, ledger, stream, &stop));
            scope.spawn(|| watch::watch(lab, ledger, config, &stop));
            let mut running = Vec::new();
            for strike in strikes {
                sleep_until(strike.at);
                running.push(scope.spawn(move || {
                    let hit = strike::strike(lab, ledger, strike);
                    ledger.deal(strike.kind, &hit);
                }));
            }
            sleep_until(until);
            for strike in running {
                // One that panicked has said so, and its fault may be there still.
                if strike.join().is_err() {
                    ledger.violated("the test itself", "a fault panicked");
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    fn cut_power(&mut self, lab: &mut Lab, cut: &Strike) -> Result<()> {
        let (start, from) = (self.ledger.elapsed(), Ledger::now_ms());
        lab.power_cycle()?;
        disks::mount(lab)?;
        lab.start()?;
        self.ledger.cut(from, Whom::Everybody);
        let took = self.ledger.elapsed().saturating_sub(start);
        self.paused += took;
        let hit = Some(format!("back after {:.1} s", took.as_secs_f64()));
        self.ledger.deal(cut.kind, &Ok(hit));
        Ok(())
    }
}
