//! `cargo simulate`: plays histories, many at once, and says which rule broke in which of them.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum as _};
use simulate::history::{self, Outcome, Script};
use simulate::mutation::Mutation;
use simulate::rule::Rule;
use simulate::weather::Ill;

/// Lines of an account that are shown, unless all of it is asked for.
const TAIL: usize = 60;

/// Plays the controller over a simulated host and GitHub, and says which promise broke in which
/// history.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many histories to play, one seed after the other [default: 1000]
    #[arg(long)]
    histories: Option<u64>,
    /// The first seed; without --histories the only one, and its account is written down
    #[arg(long)]
    seed: Option<u64>,
    /// What happens in a history before it becomes calm
    #[arg(long, default_value_t = 500)]
    events: u64,
    /// With --seed alone: write all of the account
    #[arg(long)]
    trace: bool,
    /// Threads; as many as there are cores
    #[arg(long)]
    threads: Option<usize>,
    /// Go on after a broken rule, and count
    #[arg(long)]
    count: bool,
    /// Break a rule on purpose, to see it noticed
    #[arg(long, value_enum)]
    mutation: Option<Mutation>,
}

impl Arguments {
    fn script(&self, seed: u64, traced: bool) -> Script {
        Script {
            seed,
            events: self.events,
            traced,
            without: Vec::new(),
            mutation: self.mutation,
        }
    }

    /// What to type to see one of these histories again.
    fn again(&self, seed: u64) -> String {
        let mut line = format!("cargo simulate --seed {seed} --events {}", self.events);
        if let Some(name) = self.mutation.and_then(|m| m.to_possible_value()) {
            line = format!("{line} --mutation {}", name.get_name());
        }
        line
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match (arguments.seed, arguments.histories) {
        (Some(seed), None) => replay(seed, &arguments),
        (first, histories) => Ok(many(
            first.unwrap_or(1),
            histories.unwrap_or(1000),
            &arguments,
        )),
    }
}

/// Plays one history and writes it down, as short as it can be had.
fn replay(seed: u64, arguments: &Arguments) -> Result<ExitCode> {
    let script = arguments.script(seed, true);
    let outcome = history::play(&script)?;
    let tail = if arguments.trace { usize::MAX } else { TAIL };
    let Some(violation) = &outcome.violation else {
        if arguments.trace {
            println!("{}", outcome.trace.join("\n"));
        }
        println!(
            "seed {seed}: no rule was broken ({} events)",
            outcome.events
        );
        return Ok(ExitCode::SUCCESS);
    };
    let shortest = shrink(&script, &outcome)?;
    let from = shortest.trace.len().saturating_sub(tail);
    println!("{}", shortest.trace[from..].join("\n"));
    println!("seed {seed}: {}: {}", violation.rule, violation.how);
    Ok(ExitCode::FAILURE)
}

/// Leaves out every ill without which the same rule still breaks.
fn shrink(script: &Script, outcome: &Outcome) -> Result<Outcome> {
    let rule = |outcome: &Outcome| outcome.violation.as_ref().map(|v| v.rule);
    let (mut script, mut best) = (script.clone(), outcome.clone());
    for ill in Ill::ALL {
        let mut less = script.clone();
        less.without.push(ill);
        let shorter = history::play(&less)?;
        if rule(&shorter) == rule(outcome) {
            (script, best) = (less, shorter);
        }
    }
    Ok(best)
}

#[derive(Default)]
struct Sum {
    histories: u64,
    events: u64,
    runners: u64,
    jobs: u64,
    daemons: u64,
    calls: u64,
    slowest_ms: u64,
    broken: BTreeMap<Rule, Vec<u64>>,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.histories += 1;
        self.events += outcome.events;
        self.runners += outcome.runners;
        self.jobs += outcome.jobs;
        self.daemons += outcome.daemons;
        self.calls += outcome.calls;
        self.slowest_ms = self.slowest_ms.max(outcome.settled_ms);
        if let Some(violation) = &outcome.violation {
            self.broken.entry(violation.rule).or_default().push(seed);
        }
    }
}

fn many(first: u64, histories: u64, arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicU64::new(0);
    let sum = Mutex::new(Sum::default());
    let work = || work(first, histories, arguments, &next, &sum);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.unwrap_or(cores) {
            scope.spawn(work);
        }
    });
    let mut sum = sum.into_inner().unwrap_or_default();
    println!(
        "{} histories, {} events, {} lives, {} jobs, {} daemons, {} calls to GitHub; settled within {} s; {:.1} s",
        sum.histories,
        sum.events,
        sum.runners,
        sum.jobs,
        sum.daemons,
        sum.calls,
        sum.slowest_ms / 1000,
        began.elapsed().as_secs_f64()
    );
    for (rule, seeds) in &mut sum.broken {
        seeds.sort_unstable();
        let shown: Vec<String> = seeds.iter().take(12).map(u64::to_string).collect();
        println!(
            "broken: {rule}: {} times, seeds {}",
            seeds.len(),
            shown.join(" ")
        );
    }
    if let Some(seed) = sum.broken.values().flatten().min() {
        println!("play one again: {}", arguments.again(*seed));
        return ExitCode::FAILURE;
    }
    if sum.histories < histories {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn work(first: u64, histories: u64, arguments: &Arguments, next: &AtomicU64, sum: &Mutex<Sum>) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= histories {
            return;
        }
        let seed = first + number;
        let outcome = match history::play(&arguments.script(seed, false)) {
            Ok(outcome) => outcome,
            Err(error) => {
                eprintln!("seed {seed}: {error:#}");
                return;
            }
        };
        let broken = outcome.violation.is_some();
        if let Ok(mut sum) = sum.lock() {
            sum.add(seed, &outcome);
        }
        if broken && !arguments.count {
            next.store(histories, Ordering::Relaxed);
        }
    }
}
