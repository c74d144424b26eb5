//! `cargo chaos`: jobs flow over two pools of a real host while a fault injector breaks things, by a seed.
//!
//! ```text
//! plan        schedule of faults: pure, by a seed      jobs        stream of jobs: pure, by a seed
//! injector    injects and repairs one fault            targets     finds and kills processes of slots
//! outcomes    classifies how each job ended: pure      invariants  checks the run every two seconds
//! setup       prepares, settles and clears the host    leaks       lists what a drain left behind
//! disks       small disks that a fault can fill        log         shared record of a run
//! ```
//! The checks do not ask the daemon. The stand-in GitHub reports the end of each job, and each job reports
//! its start and its end to the stand-in, with an id of its container. A job whose container the injector
//! killed must be reported as failed. Every other job must run exactly once and end as intended.

mod disks;
mod injector;
mod invariants;
pub mod jobs;
mod leaks;
mod log;
pub mod outcomes;
pub mod plan;
mod report;
mod setup;
mod stop;
mod targets;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::bed::{Bed, note};
use crate::binaries::{Binaries, Profile};
use crate::config::Config;
use crate::lab::Lab;

use jobs::JobStream;
use log::RunLog;
use outcomes::Target;
use plan::{Fault, FaultKind};
pub use report::Report;
pub use setup::clear;
use stop::{CHECK, sleep_unless};

/// Unfinished jobs at once. A longer queue would only wait longer.
const OPEN_JOBS_MAX: usize = 12;

/// Options of a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Time during which faults are injected.
    pub length: Duration,
    /// Seed of the faults and of the jobs.
    pub seed: u64,
    /// Leave the test host up.
    pub keep: bool,
    /// Build profile of our programs.
    pub profile: Profile,
}

/// Boots the test host and runs chaos on it; true if no invariant was violated.
pub fn chaos(options: Options) -> Result<bool> {
    let bed = Bed::open()?;
    let mut lab = Lab::up(&bed, Binaries::build(options.profile)?)?;
    let report = run(&mut lab, options.seed, options.length)?;
    stdio::progress(format_args!("\n{}", report.table()));
    if options.keep {
        note("the test host stays up; `cargo run -p testbed -- host shell` enters it");
    } else if report.holds() {
        clear(&lab)?;
    }
    Ok(report.holds())
}

/// Prepares the host, injects the faults of `seed`, and reports what held.
pub fn run(lab: &mut Lab, seed: u64, length: Duration) -> Result<Report> {
    let config = setup::config(lab)?;
    setup::prepare(lab, &config)?;
    let faults = plan::plan(seed, length);
    stdio::progress(format_args!(
        "seed {seed}, {}: {} faults planned",
        humantime::format_duration(length),
        faults.len()
    ));
    let log = RunLog::new();
    let mut phase = FaultPhase {
        log: &log,
        config: &config,
        jobs: JobStream::new(seed),
        paused: Duration::ZERO,
    };
    for part in faults.split_inclusive(|fault| fault.kind == FaultKind::PowerCut) {
        match part.split_last() {
            Some((cut, before)) if cut.kind == FaultKind::PowerCut => {
                phase.inject_all(lab, before, cut.at);
                phase.cut_power(lab, cut)?;
            }
            _ => phase.inject_all(lab, part, length),
        }
    }
    log.print("no more faults", "");
    let settled = setup::settle(lab, &log);
    if let Err(error) = &settled
        && log.violation("not settled", &format!("{error:#}"))
    {
        stdio::progress(format_args!("{}", lab.account()));
    }
    // The check that ran beside the faults may have missed the last seconds.
    invariants::check(lab, &log, &config)?;
    let leaks = if settled.is_ok() {
        leaks::find(lab, &config)?
    } else {
        Vec::new()
    };
    for (kind, names) in leaks.iter().filter(|(_, names)| !names.is_empty()) {
        log.violation(&format!("leaked {kind}"), &names.join("; "));
    }
    Ok(Report {
        seed,
        injected: log.injected(),
        outcomes: log.classify_jobs(lab)?,
        leaks,
        settled: settled.ok(),
        violations: log.violations(),
    })
}

/// The part of a run in which faults are injected.
struct FaultPhase<'a> {
    log: &'a RunLog,
    config: &'a Config,
    jobs: JobStream,
    /// Time that power cuts took. The plan's clock does not count it.
    paused: Duration,
}

impl FaultPhase<'_> {
    /// Injects each fault at its time on a separate thread. Returns at `until`, or later when the last
    /// fault is repaired.
    fn inject_all(&mut self, lab: &Lab, faults: &[Fault], until: Duration) {
        let stop = AtomicBool::new(false);
        let (log, config, paused) = (self.log, self.config, self.paused);
        let jobs = &mut self.jobs;
        let sleep_until = |at: Duration| {
            std::thread::sleep((at + paused).saturating_sub(log.elapsed()));
        };
        std::thread::scope(|scope| {
            scope.spawn(|| queue_jobs(lab, log, jobs, &stop));
            scope.spawn(|| invariants::check_until(lab, log, config, &stop));
            let mut running = Vec::new();
            for fault in faults {
                sleep_until(fault.at);
                running.push(scope.spawn(move || {
                    let hit = injector::inject(lab, log, fault);
                    log.fault_injected(fault.kind, &hit);
                }));
            }
            sleep_until(until);
            for fault in running {
                // The panic is already printed. Its fault may not be repaired.
                if fault.join().is_err() {
                    log.violation("the test itself", "a thread that injects a fault panicked");
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    fn cut_power(&mut self, lab: &mut Lab, cut: &Fault) -> Result<()> {
        let (start, from) = (self.log.elapsed(), RunLog::now_ms());
        lab.power_cycle()?;
        disks::mount(lab)?;
        lab.start()?;
        self.log.killed(from, Target::AllContainers);
        let took = self.log.elapsed().saturating_sub(start);
        self.paused += took;
        let hit = Some(format!("back after {:.1} s", took.as_secs_f64()));
        self.log.fault_injected(cut.kind, &Ok(hit));
        Ok(())
    }
}

/// Queues jobs until `stop` is set.
fn queue_jobs(lab: &Lab, log: &RunLog, jobs: &mut JobStream, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Some((pause, draft)) = jobs.next() else {
            return;
        };
        sleep_unless(pause, stop);
        while log.open_jobs() >= OPEN_JOBS_MAX && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(CHECK);
        }
        if !stop.load(Ordering::Relaxed) {
            // GitHub may be away. Its list of jobs shows later whether it accepted this one.
            log.queue(lab, &draft).ok();
        }
    }
}
