//! `cargo simulate`: plays histories on all cores, and reports the invariants that were violated.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum as _};
use simulate::fault::FaultKind;
use simulate::history::{self, Outcome, Scenario};
use simulate::invariant::{Invariant, Violation};
use simulate::mutation::Mutation;
use stdio::{PrintError, print_line};

/// Number of lines of an account that are shown without `--trace`.
const SHOWN_LINES: usize = 60;
/// Number of seeds that are shown for each violated invariant.
const SHOWN_SEEDS: usize = 12;

/// Plays the controller over a simulated host, disk, network and GitHub, and reports violated invariants
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of histories, one seed after the other [default: 1000]
    #[arg(long)]
    histories: Option<u64>,
    /// First seed; without --histories the only one, whose account is shown
    #[arg(long)]
    seed: Option<u64>,
    /// Number of steps before the faults end
    #[arg(long, default_value_t = 500)]
    steps: u64,
    /// Show the whole account of the one history
    #[arg(long)]
    trace: bool,
    /// Number of threads [default: number of cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Go on after a violation, and count violations
    #[arg(long)]
    count: bool,
    /// Give the daemon a defect, to see that it is noticed
    #[arg(long, value_enum)]
    mutation: Option<Mutation>,
}

impl Arguments {
    fn scenario(&self, seed: u64, traced: bool) -> Scenario {
        Scenario {
            seed,
            steps: self.steps,
            traced,
            without: Vec::new(),
            mutation: self.mutation,
        }
    }

    /// Returns the command that plays one of these histories again.
    fn command(&self, seed: u64) -> String {
        let mut line = format!("cargo simulate --seed {seed} --steps {}", self.steps);
        if let Some(name) = self.mutation.and_then(|m| m.to_possible_value()) {
            line = format!("{line} --mutation {}", name.get_name());
        }
        line
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match (arguments.seed, arguments.histories) {
        (Some(seed), None) => play_one(seed, &arguments),
        (first, histories) => play_many(first.unwrap_or(1), histories.unwrap_or(1000), &arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            if let Some(PrintError::ReaderGone) = error.downcast_ref() {
                return ExitCode::from(stdio::READER_GONE);
            }
            stdio::error(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Plays one history and shows its account, without the faults that a violation does not need.
fn play_one(seed: u64, arguments: &Arguments) -> Result<ExitCode> {
    let scenario = arguments.scenario(seed, true);
    let outcome = history::play(&scenario)?;
    if outcome.violation.is_none() {
        if arguments.trace {
            print_line(outcome.trace.join("\n"))?;
        }
        let steps = outcome.steps;
        print_line(format_args!("seed {seed}: no violation ({steps} steps)"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let shortest = shrink(&scenario, outcome)?;
    let hidden = shortest.trace.len().saturating_sub(SHOWN_LINES);
    let shown = if arguments.trace { 0 } else { hidden };
    print_line(shortest.trace[shown..].join("\n"))?;
    if let Some(Violation { invariant, facts }) = shortest.violation {
        print_line(format_args!("seed {seed}: {invariant}: {facts}"))?;
    }
    Ok(ExitCode::FAILURE)
}

/// Leaves out each kind of fault without which the same invariant is still violated.
fn shrink(scenario: &Scenario, outcome: Outcome) -> Result<Outcome> {
    let invariant = |outcome: &Outcome| outcome.violation.as_ref().map(|v| v.invariant);
    let (mut scenario, mut shortest) = (scenario.clone(), outcome);
    for kind in FaultKind::ALL {
        let mut less = scenario.clone();
        less.without.push(kind);
        let shorter = history::play(&less)?;
        if invariant(&shorter) == invariant(&shortest) {
            (scenario, shortest) = (less, shorter);
        }
    }
    Ok(shortest)
}

/// Sums over the histories that were played.
#[derive(Default)]
struct Totals {
    histories: u64,
    steps: u64,
    containers: u64,
    jobs: u64,
    daemons: u64,
    calls: u64,
    slowest_ms: u64,
    violations: BTreeMap<Invariant, Vec<u64>>,
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.histories += 1;
        self.steps += outcome.steps;
        self.containers += outcome.containers;
        self.jobs += outcome.jobs;
        self.daemons += outcome.daemons;
        self.calls += outcome.calls;
        self.slowest_ms = self.slowest_ms.max(outcome.settled_ms);
        if let Some(violation) = &outcome.violation {
            let seeds = self.violations.entry(violation.invariant).or_default();
            seeds.push(seed);
        }
    }
}

fn play_many(first: u64, histories: u64, arguments: &Arguments) -> Result<ExitCode> {
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicU64::new(0);
    let totals = Mutex::new(Totals::default());
    let play = || play_next(first, histories, arguments, &next, &totals);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.unwrap_or(cores) {
            scope.spawn(play);
        }
    });
    let mut totals = totals.into_inner().unwrap_or_default();
    print_line(format_args!(
        "{} histories, {} steps, {} containers, {} jobs, {} daemons, {} calls to GitHub; settled within {} s; {:.1} s",
        totals.histories,
        totals.steps,
        totals.containers,
        totals.jobs,
        totals.daemons,
        totals.calls,
        totals.slowest_ms / 1000,
        began.elapsed().as_secs_f64()
    ))?;
    for (invariant, seeds) in &mut totals.violations {
        seeds.sort_unstable();
        let shown: Vec<String> = seeds.iter().take(SHOWN_SEEDS).map(u64::to_string).collect();
        let (count, shown) = (seeds.len(), shown.join(" "));
        print_line(format_args!(
            "violation: {invariant}: {count} times, seeds {shown}"
        ))?;
    }
    if let Some(seed) = totals.violations.values().flatten().min() {
        print_line(format_args!("see it again: {}", arguments.command(*seed)))?;
        return Ok(ExitCode::FAILURE);
    }
    if totals.histories < histories {
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Plays histories until none is left, or one has a violation.
fn play_next(
    first: u64,
    histories: u64,
    arguments: &Arguments,
    next: &AtomicU64,
    totals: &Mutex<Totals>,
) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= histories {
            return;
        }
        let seed = first + number;
        let outcome = match history::play(&arguments.scenario(seed, false)) {
            Ok(outcome) => outcome,
            Err(error) => {
                stdio::error(format_args!("cannot play seed {seed}: {error:#}"));
                return;
            }
        };
        let violated = outcome.violation.is_some();
        if let Ok(mut totals) = totals.lock() {
            totals.add(seed, &outcome);
        }
        if violated && !arguments.count {
            next.store(histories, Ordering::Relaxed);
        }
    }
}
