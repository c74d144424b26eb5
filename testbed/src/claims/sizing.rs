//! The prediction of `size`, beside a run of the same jobs.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use github_sim::JobView;
use serde_json::Value;
use status::VerdictRecord;

use super::common::{SOON, await_end, run_jobs};
use super::fixture::{Fixture, await_settled, small};
use super::suite::{Suite, suite};
use crate::binaries::CONTROLLER;
use crate::lab::Lab;
use crate::sim::pool_job;

pub(super) const SUITE: Suite = suite![TWO_RUNNERS;
    the_predicted_waits_and_utilisation_are_those_of_a_run,
];

/// One pool with two runners.
const TWO_RUNNERS: Fixture = Fixture {
    name: "two runners",
    config: |lab| {
        let config = small(lab.sim().api_url());
        Ok(Some(config.with("ci", |pool| pool.max_runners = 2)))
    },
    await_ready: await_settled,
};

/// Number of runners of the pool.
const RUNNERS: u32 = 2;
/// Run time of each job: long beside a boot, so that a busy machine changes little.
const RUN: Duration = Duration::from_secs(3);
/// Jobs that are queued at once, and as many that come one by one as these end.
const BURST: usize = 6;
/// Quick jobs before, whose records tell the times of this machine.
const QUICK: usize = 8;
/// Largest difference between prediction and run.
const MAX_DIFFERENCE: f64 = 0.15;

fn the_predicted_waits_and_utilisation_are_those_of_a_run(lab: &mut Lab) -> Result<()> {
    let remove = removal(lab)?;
    await_settled(lab)?;
    let jobs = run(lab)?;
    let measured = Figures::of_run(&jobs)?;
    let predicted = Figures::of_prediction(&predict(lab, &jobs, remove)?)?;
    let told = format!("measured {measured:?}, predicted {predicted:?}, removal {remove:?}");
    crate::bed::note(&told);
    for (measured, predicted) in measured.0.into_iter().zip(predicted.0) {
        ensure!(
            (predicted / measured - 1.0).abs() <= MAX_DIFFERENCE,
            "they differ by more than 15 %: {told}"
        );
    }
    Ok(())
}

/// Mean wait in seconds, the wait that 95 % do not exceed, and utilisation.
#[derive(Debug)]
struct Figures([f64; 3]);

impl Figures {
    fn of_run(jobs: &[JobView]) -> Result<Self> {
        let seconds = |from: u64, until: u64| Duration::from_millis(until - from).as_secs_f64();
        let mut waits = Vec::new();
        let (mut busy, mut last) = (0.0, 0);
        for job in jobs {
            let started = job.started_at.context("a job that ended has started")?;
            let ended = job.completed_at.context("a job that succeeded has ended")?;
            waits.push(seconds(job.created_at, started));
            busy += seconds(started, ended);
            last = last.max(ended);
        }
        let first = jobs.iter().map(|job| job.created_at).min();
        let span = seconds(first.unwrap_or_default(), last);
        waits.sort_by(f64::total_cmp);
        let mean = waits.iter().sum::<f64>() / f64::from(u32::try_from(waits.len())?);
        let p95 = waits[(waits.len() * 95).div_ceil(100) - 1];
        Ok(Self([mean, p95, busy / span / f64::from(RUNNERS)]))
    }

    fn of_prediction(report: &Value) -> Result<Self> {
        let pool = &report["hosts"][0]["pools"][0];
        let number = |key: &str| {
            let number = pool[key].as_f64();
            number.with_context(|| format!("{key} is missing in {report}"))
        };
        let (mean, p95) = (number("wait_mean_ms")?, number("wait_p95_ms")?);
        Ok(Self([mean / 1000.0, p95 / 1000.0, number("utilisation")?]))
    }
}

/// Runs quick jobs, and returns the time that a runner takes from the end of its job until its slot is vacant.
fn removal(lab: &Lab) -> Result<Duration> {
    let quick: Vec<_> = (0..QUICK)
        .map(|_| pool_job("quick", "ci", "true"))
        .collect();
    for job in run_jobs(lab, &quick)? {
        await_end(
            lab,
            &job.runner_name.context("a job that ran has a runner")?,
        )?;
    }
    let shown = lab.host().run(&[CONTROLLER, "history", "--json"])?;
    let records: Vec<VerdictRecord> = serde_json::from_str(&shown)?;
    let mut times: Vec<u64> = records.iter().filter_map(|record| record.job_ms).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2);
    Ok(Duration::from_millis(
        *median.context("no job is on record")?,
    ))
}

/// Runs the jobs: a burst, and then another one after each that ended.
fn run(lab: &Lab) -> Result<Vec<JobView>> {
    let script = format!("sleep {}", RUN.as_secs());
    let job = pool_job("sized", "ci", &script);
    let mut ids = lab.sim().queue_all(&vec![job.clone(); BURST])?;
    let mut done = Vec::new();
    while let Some(id) = ids.get(done.len()) {
        done.push(lab.sim().await_success(*id, SOON)?);
        if done.len() <= BURST {
            ids.push(lab.sim().queue(&job)?);
        }
    }
    Ok(done)
}

/// Predicts the run of these jobs, each queued when it was.
fn predict(lab: &Lab, jobs: &[JobView], remove: Duration) -> Result<Value> {
    let first = jobs
        .iter()
        .map(|job| job.created_at)
        .min()
        .unwrap_or_default();
    let mut trace = String::new();
    for job in jobs {
        let (after, run) = (job.created_at - first, RUN.as_millis());
        let _ = writeln!(
            trace,
            "[[trace]]\nafter = \"{after}ms\"\nduration = \"{run}ms\""
        );
    }
    let file = "/tmp/jobs.toml";
    lab.host().write(file, trace.as_bytes(), 0o644)?;
    let remove = format!("{}ms", remove.as_millis());
    // The stand-in's listener runs a job at once.
    let shown = lab.host().run(&[
        CONTROLLER,
        "size",
        "--workload",
        file,
        "--start-job",
        "0s",
        "--remove",
        &remove,
        "--json",
    ])?;
    Ok(serde_json::from_str(&shown)?)
}
