//! The result of a simulation, as JSON and for people.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::CellAlignment;
use serde::Serialize;

use super::super::table::{lines, table};
use crate::config::{ByteSize, Config, PoolConfig};
use crate::pool::PoolName;
use crate::sizing::{Needed, Outcome, Past, PoolOutcome, Samples, Source, Times};
use crate::view::span;

/// The whole result.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    simulated: Simulated,
    times: TimesReport,
    hosts: [HostsReport; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    notes: Vec<String>,
}

/// The jobs that were simulated.
#[derive(Debug, Serialize)]
pub(super) struct Simulated {
    pub(super) jobs: usize,
    /// Workload file, or none for the history.
    #[serde(rename = "workload")]
    pub(super) source: Option<String>,
    pub(super) span_ms: u64,
    pub(super) seed: u64,
}

#[derive(Debug, Serialize)]
struct TimesReport {
    boot: TimeReport,
    register: TimeReport,
    start_job: TimeReport,
    remove: TimeReport,
}

#[derive(Debug, Serialize)]
struct TimeReport {
    median_ms: u64,
    source: Source,
}

impl TimeReport {
    fn of(samples: &Samples) -> Self {
        Self {
            median_ms: samples.median_ms(),
            source: samples.source,
        }
    }

    fn words(&self) -> String {
        let source = match self.source {
            Source::Default => "default",
            Source::Option => "option",
            Source::History => "history",
        };
        format!("{} ({source})", span(self.median_ms))
    }
}

/// Result for a number of hosts with the same configuration.
#[derive(Debug, Serialize)]
pub(super) struct HostsReport {
    hosts: usize,
    memory_peak_bytes: u64,
    closed_ms: u64,
    pools: Vec<PoolReport>,
}

#[derive(Debug, Serialize)]
struct PoolReport {
    pool: PoolName,
    jobs: usize,
    runners: usize,
    peak_runners: usize,
    utilisation: f64,
    load: f64,
    wait_mean_ms: u64,
    wait_p50_ms: u64,
    wait_p95_ms: u64,
    wait_p99_ms: u64,
    waiting_at_end: usize,
    never_catches_up: bool,
}

impl HostsReport {
    pub(super) fn of(hosts: usize, outcome: &Outcome) -> Self {
        let pools = outcome.pools.iter().map(|pool| PoolReport {
            pool: pool.pool.clone(),
            jobs: pool.jobs,
            runners: pool.runners,
            peak_runners: pool.peak_runners,
            utilisation: rounded(pool.utilisation),
            load: rounded(pool.load),
            wait_mean_ms: pool.mean_wait_ms(),
            wait_p50_ms: pool.wait_ms(50),
            wait_p95_ms: pool.wait_ms(95),
            wait_p99_ms: pool.wait_ms(99),
            waiting_at_end: pool.waiting_at_end,
            never_catches_up: pool.never_catches_up,
        });
        Self {
            hosts,
            memory_peak_bytes: outcome.memory_peak_bytes,
            closed_ms: outcome.closed_ms,
            pools: pools.collect(),
        }
    }
}

fn rounded(share: f64) -> f64 {
    (share * 1000.0).round() / 1000.0
}

/// The wait that 95 % of the jobs should not exceed, and what each pool needs for it.
#[derive(Debug, Serialize)]
struct Target {
    wait_p95_ms: u64,
    pools: Vec<TargetReport>,
}

/// Numbers that a pool needs for the target.
#[derive(Debug, Serialize)]
pub(super) struct TargetReport {
    pool: PoolName,
    configured_max_runners: u16,
    configured_min_idle: u16,
    /// True if any numbers reach the target.
    is_reached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_runners: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_idle: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_p95_ms: Option<u64>,
    /// `limits.memory` of all these runners.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
}

impl TargetReport {
    pub(super) fn of(pool: &PoolConfig, needed: Option<&Needed>) -> Self {
        let memory = |needed: &Needed| {
            u64::from(needed.numbers.max_runners).saturating_mul(pool.limits.memory.0)
        };
        Self {
            pool: pool.name.clone(),
            configured_max_runners: pool.max_runners,
            configured_min_idle: pool.min_idle,
            is_reached: needed.is_some(),
            max_runners: needed.map(|needed| needed.numbers.max_runners),
            min_idle: needed.map(|needed| needed.numbers.min_idle),
            wait_p95_ms: needed.map(|needed| needed.outcome.wait_ms(95)),
            memory_bytes: needed.map(memory),
        }
    }

    fn words(&self, target: &str) -> String {
        let pool = &self.pool;
        let (Some(runners), Some(idle), Some(wait), Some(memory)) = (
            self.max_runners,
            self.min_idle,
            self.wait_p95_ms,
            self.memory_bytes,
        ) else {
            return format!(
                "pool {pool}: no number of runners reaches a wait of {target}, because a boot or a registration takes longer"
            );
        };
        let idle = if idle > self.configured_min_idle {
            format!(" and min_idle = {idle} (now {})", self.configured_min_idle)
        } else {
            String::new()
        };
        format!(
            "pool {pool}: max_runners = {runners} (now {}){idle}; 95 % of the jobs wait at most {}, and limits.memory of all these runners is {}",
            self.configured_max_runners,
            span(wait),
            ByteSize(memory)
        )
    }
}

impl Report {
    pub(super) fn of(
        simulated: Simulated,
        times: &Times,
        target: Option<(Duration, Vec<TargetReport>)>,
        hosts: [HostsReport; 2],
        notes: Vec<String>,
    ) -> Self {
        let target = target.map(|(wait, pools)| Target {
            wait_p95_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            pools,
        });
        Self {
            simulated,
            times: TimesReport {
                boot: TimeReport::of(&times.boot),
                register: TimeReport::of(&times.register),
                start_job: TimeReport::of(&times.start_job),
                remove: TimeReport::of(&times.remove),
            },
            hosts,
            target,
            notes,
        }
    }
}

/// Returns notes about jobs and times of the history.
pub(super) fn notes_of(past: &Past) -> Vec<String> {
    let jobs = past.arrivals.jobs.len();
    let waited = past.may_have_waited;
    let mut notes = vec![format!(
        "the history does not tell when jobs were queued, so each counts from its start; {waited} of {jobs} came as soon as \
         their runner listened, so they may have waited before"
    )];
    for (pool, jobs) in &past.unknown {
        notes.push(format!(
            "pool {pool} is not configured any more; its {jobs} jobs are left out"
        ));
    }
    notes
}

/// Returns notes about the results.
pub(super) fn notes(
    config: &Config,
    outcome: &Outcome,
    target: Option<&(Duration, Vec<TargetReport>)>,
    memory: Option<u64>,
) -> Vec<String> {
    let mut notes = Vec::new();
    for pool in outcome.pools.iter().filter(|pool| pool.never_catches_up) {
        notes.push(overload(pool));
    }
    if outcome.too_large > 0 {
        let jobs = outcome.too_large;
        notes.push(format!(
            "{jobs} jobs need more memory than limits.memory of their pool, and would be killed"
        ));
    }
    if outcome.cut_short > 0 {
        let jobs = outcome.cut_short;
        notes.push(format!(
            "{jobs} jobs ran longer than timeouts.job, and were ended"
        ));
    }
    if let Some(whole) = memory {
        notes.push(format!(
            "runners of one host used at most {} of its {} of memory at once",
            ByteSize(outcome.memory_peak_bytes),
            ByteSize(whole)
        ));
    }
    if outcome.closed_ms > 0 {
        notes.push(format!(
            "for {} no runner started, because less memory was left than the reserve",
            span(outcome.closed_ms)
        ));
    }
    for needed in target.into_iter().flat_map(|(_, pools)| pools) {
        let budget = config.budget.memory_bytes;
        if let Some((needed_bytes, budget)) = needed.memory_bytes.zip(budget)
            && needed_bytes > budget
        {
            notes.push(format!(
                "pool {}: these runners need budget.memory = \"{}\" or more (now {})",
                needed.pool,
                ByteSize(needed_bytes),
                ByteSize(budget)
            ));
        }
    }
    notes
}

fn overload(pool: &PoolOutcome) -> String {
    let (name, waiting) = (&pool.pool, pool.waiting_at_end);
    let cause = if pool.load >= 1.0 {
        format!(
            "its jobs need {:.0} % of the time of its runners",
            pool.load * 100.0
        )
    } else {
        "its jobs come faster than its runners take them".to_owned()
    };
    format!("pool {name} never catches up: {cause}, and {waiting} jobs wait at the end")
}

/// Returns the result as text.
pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    let simulated = &report.simulated;
    let source = simulated.source.as_deref().unwrap_or("the history");
    let _ = writeln!(
        text,
        "simulated {} jobs of {source} in {}, with seed {}\n",
        simulated.jobs,
        span(simulated.span_ms),
        simulated.seed
    );
    text += &hosts(&report.hosts);
    if let Some(target) = &report.target {
        let wait = span(target.wait_p95_ms);
        let _ = writeln!(text, "\nfor a wait of {wait} on one host:");
        for pool in &target.pools {
            let _ = writeln!(text, "- {}", pool.words(&wait));
        }
    }
    let times = &report.times;
    let _ = writeln!(
        text,
        "\ntimes of a runner: boot {}, registration {}, start of a job {}, removal {}",
        times.boot.words(),
        times.register.words(),
        times.start_job.words(),
        times.remove.words()
    );
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn hosts(hosts: &[HostsReport]) -> String {
    let mut rows = table([
        "HOSTS",
        "POOL",
        "JOBS",
        "RUNNERS",
        "UTILISATION",
        "WAIT P50",
        "P95",
        "P99",
    ]);
    for column in rows.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for of in hosts {
        for pool in &of.pools {
            let wait = |ms| {
                if pool.never_catches_up {
                    "grows".to_owned()
                } else {
                    span(ms)
                }
            };
            rows.add_row([
                of.hosts.to_string(),
                pool.pool.to_string(),
                pool.jobs.to_string(),
                pool.runners.to_string(),
                format!("{:.0} %", pool.utilisation * 100.0),
                wait(pool.wait_p50_ms),
                wait(pool.wait_p95_ms),
                wait(pool.wait_p99_ms),
            ]);
        }
    }
    lines(&rows)
}
