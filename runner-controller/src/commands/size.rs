//! `size`: how long jobs wait on a host like this one, how many runners they need, and what one more host brings.

mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::common::{api_socket, block_on};
use super::history;
use crate::config::{self, ByteSize, Config, Workload};
use crate::pool::VerdictRecord;
use crate::sizing::{Arrivals, Samples, Setup, Source, Times, generate, needed, past, play};
use crate::status::HistoryQuery;
use crate::{clock, readings, terminal};
use report::{HostsReport, Report, Simulated, TargetReport};

/// Options of the simulation.
#[derive(Debug, Clone)]
pub struct SizeOptions {
    /// Workload file; the jobs of the history without it.
    pub workload: Option<PathBuf>,
    /// Age of the oldest runner of the history.
    pub since: Duration,
    /// Time in which jobs of a workload file come.
    pub span: Duration,
    /// Wait that 95 % of the jobs should not exceed.
    pub target: Option<Duration>,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Cores of the host; those of this machine without it.
    pub cores: Option<u16>,
    /// Memory of the host.
    pub memory: Option<ByteSize>,
    /// Time of a boot.
    pub boot: Option<Duration>,
    /// Time of a registration.
    pub register: Option<Duration>,
    /// Time from the moment at which a runner gets a job until the job runs.
    pub start_job: Option<Duration>,
    /// Time from the end of a job until its slot is vacant.
    pub remove: Option<Duration>,
    /// True for JSON.
    pub json: bool,
}

/// Simulates the host, and prints utilisation and waits.
pub fn size(config_path: &Path, options: &SizeOptions) -> anyhow::Result<()> {
    let config = config::load(config_path)?;
    let report = simulate(config_path, &config, options)?;
    if options.json {
        let text = serde_json::to_string_pretty(&report)?;
        stdio::print_line(terminal::plain_json(&text))?;
    } else {
        stdio::print(report::render(&report))?;
    }
    Ok(())
}

fn simulate(path: &Path, config: &Config, options: &SizeOptions) -> anyhow::Result<Report> {
    let workload = options.workload.as_deref();
    let workload = workload
        .map(|file| config::load_workload(file, config))
        .transpose()?;
    let records = records(path, options.since);
    let mut notes = Vec::new();
    let (arrivals, times, has_history) = match (&workload, records) {
        (Some(workload), Ok(records)) => {
            let past = past(&records, config, times(options));
            (of_file(workload, config, options)?, past.times, true)
        }
        (Some(workload), Err(error)) => {
            notes.push(format!(
                "the daemon does not answer, so the times are defaults or options: {error:#}"
            ));
            (of_file(workload, config, options)?, times(options), false)
        }
        (None, records) => {
            let records = records.context(
                "cannot read the history; give --workload FILE to size a host without one",
            )?;
            let past = past(&records, config, times(options));
            notes.extend(report::notes_of(&past));
            ensure!(
                !past.arrivals.jobs.is_empty(),
                "no job of a configured pool is on record; give a longer --since, or --workload FILE"
            );
            (past.arrivals, past.times, true)
        }
    };
    let times = chosen(times, options);
    let mut setup = setup(config, options, has_history);
    let one = play(&setup, &arrivals, &times);
    let target = options.target.map(|target| {
        let wanted = config
            .pools
            .iter()
            .filter(|pool| one.pool(&pool.name).is_some_and(|outcome| outcome.jobs > 0));
        let found = wanted.map(|pool| {
            let needed = needed(&setup, &arrivals, &times, &pool.name, target);
            TargetReport::of(pool, needed.as_ref())
        });
        (target, found.collect::<Vec<_>>())
    });
    setup.hosts = 2;
    let two = play(&setup, &arrivals, &times);
    notes.extend(report::notes(
        config,
        &one,
        target.as_ref(),
        setup.memory_bytes,
    ));
    let simulated = Simulated {
        jobs: arrivals.jobs.len(),
        source: options
            .workload
            .as_ref()
            .map(|file| file.display().to_string()),
        span_ms: one.span_ms,
        seed: options.seed,
    };
    Ok(Report::of(
        simulated,
        &times,
        target,
        [HostsReport::of(1, &one), HostsReport::of(2, &two)],
        notes,
    ))
}

fn of_file(
    workload: &Workload,
    config: &Config,
    options: &SizeOptions,
) -> anyhow::Result<Arrivals> {
    Ok(generate(workload, config, options.span, options.seed)?)
}

/// Reads the runners that ended within this time.
fn records(config: &Path, since: Duration) -> anyhow::Result<Vec<VerdictRecord>> {
    let age = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let query = HistoryQuery {
        since_unix_ms: Some(clock::unix_ms().saturating_sub(age)),
        ..HistoryQuery::default()
    };
    Ok(block_on(history::read(
        &api_socket(config),
        query,
        usize::MAX,
    ))??)
}

/// Returns the times of the options, and defaults for the others.
fn times(options: &SizeOptions) -> Times {
    chosen(Times::default(), options)
}

/// Returns the times with those of the options in place of the known ones.
fn chosen(times: Times, options: &SizeOptions) -> Times {
    let choose = |option: Option<Duration>, known: Samples| match option {
        Some(time) => {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            Samples::fixed(ms, Source::Option)
        }
        None => known,
    };
    Times {
        boot: choose(options.boot, times.boot),
        register: choose(options.register, times.register),
        start_job: choose(options.start_job, times.start_job),
        remove: choose(options.remove, times.remove),
    }
}

/// Returns one host. A machine with a history is the host itself, so its memory counts.
fn setup<'c>(config: &'c Config, options: &SizeOptions, has_history: bool) -> Setup<'c> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = u16::try_from(cores).unwrap_or(u16::MAX);
    let own = || readings::memory_bytes().filter(|_| has_history);
    Setup {
        config,
        hosts: 1,
        cores: options.cores.unwrap_or(cores).max(1),
        memory_bytes: options.memory.map(|memory| memory.0).or_else(own),
        numbers: BTreeMap::new(),
        has_budget: true,
        seed: options.seed,
    }
}
