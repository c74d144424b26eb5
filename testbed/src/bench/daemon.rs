//! The daemon's cost: calls to GitHub, memory, processor time.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use github_sim::{Conclusion, JobSpec, RequestRecord, Stats};
use serde_json::{Value, json};

use super::figures::{Figure, Source};
use super::start::{SOON, begin};
use super::usage::{self, field};
use crate::bed::note;
use crate::config::Config;
use crate::lab::{DAEMON, Lab};
use crate::settle::await_listening;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

/// Interval between two full reconciles, the default of the configuration.
const RECONCILE: Duration = Duration::from_mins(1);

/// Least rate of quick jobs over four slots: the default of `github.mints_per_minute`, as `docs/benchmarks.md` has it.
const LEAST_JOBS_PER_MINUTE: f64 = 150.0;

/// Measures an idle daemon, then quick jobs over four slots of one pool.
pub(super) fn many_jobs(lab: &Lab, count: usize, idle: Duration) -> Result<Vec<Figure>> {
    let config = Config::small(lab.sim().api_url()).with("ci", |pool| {
        pool.min_idle = 2;
        pool.min_spare = 2;
        pool.max_runners = 4;
    });
    begin(lab, &config)?;
    // The stand-in refuses as GitHub documents.
    lab.sim().set(&json!({ "secondary_limits": true }))?;
    let process = Process::find(lab)?;
    // The idle time comes first. So registrations of earlier measurements are not those of the last minute.
    let Idle {
        elapsed,
        share,
        calls: resting,
    } = watch_idle(lab, &process, idle)?;
    // Calls count from here, so that the first two runners do not count as a job's cost.
    lab.sim().forget_calls()?;
    let start = Instant::now();
    run_quick(lab, count)?;
    let done = start.elapsed();
    await_listening(lab, SOON)?;
    let busy = start.elapsed();
    let working = lab.sim().stats()?;
    let rss = process.rss_megabytes()?;
    let jobs = number(count as u64);
    let per_job = number(working.rest_calls() - working.calls_of("list")) / jobs;
    let per_minute = jobs / done.as_secs_f64() * 60.0;
    let refused = working.answers("mint", 403) + working.answers("mint", 429);
    let lists = |calls: &Stats, time: Duration| {
        let reconciles = time.as_secs_f64() / RECONCILE.as_secs_f64();
        number(calls.calls_of("list")) / reconciles.ceil()
    };
    Ok(vec![
        Figure::plain(
            "mints and deletes per job",
            "calls",
            Source::StandIn,
            vec![per_job],
        )
        .at_most(1.05, ""),
        Figure::plain(
            "lists per reconcile, at work",
            "calls",
            Source::StandIn,
            vec![lists(&working, busy)],
        )
        .at_most(1.0, ""),
        Figure::plain(
            "lists per reconcile, idle",
            "calls",
            Source::StandIn,
            vec![lists(&resting, elapsed)],
        )
        .at_most(1.0, ""),
        Figure::plain(
            "unconditional lists, idle",
            "calls",
            Source::StandIn,
            vec![number(unconditional_lists(&resting))],
        )
        .at_most(0.0, ""),
        Figure::plain(
            "jobs per minute over 4 slots",
            "jobs",
            Source::StandIn,
            vec![per_minute],
        )
        .at_least(LEAST_JOBS_PER_MINUTE, ""),
        Figure::plain(
            "mints that GitHub's limits refused",
            "calls",
            Source::StandIn,
            vec![number(refused)],
        )
        .at_most(0.0, ""),
        Figure::plain(
            "daemon's resident memory after the jobs",
            "MB",
            Source::Kernel,
            vec![rss],
        )
        .at_most(20.0, ""),
        Figure::plain(
            "daemon's share of a core, idle",
            "%",
            Source::Kernel,
            vec![share],
        )
        .at_most(0.2, ""),
    ])
}

/// An idle daemon.
struct Idle {
    elapsed: Duration,
    /// Share of a core in percent.
    share: f64,
    calls: Stats,
}

fn watch_idle(lab: &Lab, process: &Process<'_>, idle: Duration) -> Result<Idle> {
    note(&format!("idle for {} s", idle.as_secs()));
    lab.sim().forget_calls()?;
    let (start, before) = (Instant::now(), process.cpu()?);
    // This waits for time to pass, because the idle time itself is measured.
    wait_until("the idle time to pass", idle + SOON, || {
        Ok(if start.elapsed() >= idle {
            Seen::Done(())
        } else {
            Seen::NotYet(String::new())
        })
    })?;
    let (elapsed, spent) = (start.elapsed(), process.cpu()?.saturating_sub(before));
    Ok(Idle {
        elapsed,
        share: spent.as_secs_f64() / elapsed.as_secs_f64() * 100.0,
        calls: lab.sim().stats()?,
    })
}

/// Runs this many quick jobs, all queued at once.
pub(super) fn run_quick(lab: &Lab, count: usize) -> Result<()> {
    note(&format!("{count} quick jobs over 4 slots"));
    let jobs: Vec<JobSpec> = (1..=count)
        .map(|number| pool_job(&format!("quick-{number}"), "ci", "true"))
        .collect();
    lab.sim().queue_all(&jobs)?;
    wait_until("all jobs to succeed", Duration::from_mins(15), || {
        let jobs = lab.sim().jobs()?;
        let done = jobs
            .iter()
            .filter(|job| job.conclusion == Some(Conclusion::Success))
            .count();
        Ok(if done == count {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{done} of {count} succeeded"))
        })
    })
}

fn unconditional_lists(stats: &Stats) -> u64 {
    let plain = |request: &&RequestRecord| request.endpoint == "list" && !request.conditional;
    stats.requests.iter().filter(plain).count() as u64
}

/// The daemon's process, read from outside the host.
pub(super) struct Process<'a> {
    lab: &'a Lab,
    pid: String,
    cgroup: String,
}

impl<'a> Process<'a> {
    pub(super) fn find(lab: &'a Lab) -> Result<Self> {
        Ok(Self {
            lab,
            pid: lab.show(DAEMON, "MainPID")?,
            cgroup: lab.show(DAEMON, "ControlGroup")?,
        })
    }

    pub(super) fn rss_megabytes(&self) -> Result<f64> {
        self.megabytes_of("VmRSS:")
    }

    /// Returns the largest resident memory since the process began.
    pub(super) fn peak_rss_megabytes(&self) -> Result<f64> {
        self.megabytes_of("VmHWM:")
    }

    fn megabytes_of(&self, name: &str) -> Result<f64> {
        let status = self
            .lab
            .host()
            .run(&["cat", &format!("/proc/{}/status", self.pid)])?;
        let kilobytes: u64 =
            field(&status, name).with_context(|| format!("cannot read {name} of the daemon"))?;
        Ok(megabytes(kilobytes * 1024))
    }

    /// Returns the processor time of the daemon's control group.
    pub(super) fn cpu(&self) -> Result<Duration> {
        usage::cpu(self.lab.host(), &self.cgroup)
    }
}

/// Converts bytes to megabytes of 10^6 bytes.
pub(super) fn megabytes(bytes: u64) -> f64 {
    number(bytes) / 1e6
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and sizes, far below 2^52"
)]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

/// Returns the load average of the last minute.
pub(super) fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    text.split(' ')
        .next()
        .and_then(|load| load.parse().ok())
        .context("cannot read the load from /proc/loadavg")
}

/// Returns the load of this machine, and says so if it is not quiet.
pub(super) fn quiet_load() -> Result<f64> {
    let load = load()?;
    if load > 0.5 {
        note(&format!(
            "the load of this machine is {load}: other processes will distort the figures"
        ));
    }
    Ok(load)
}

/// Returns a description of this machine.
pub(super) fn machine() -> Result<Value> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    let memory = fs::read_to_string("/proc/meminfo")?;
    Ok(json!({
        "cpu": model,
        "cores": std::thread::available_parallelism()?.get(),
        "memory_mb": field(&memory, "MemTotal:").map(|kilobytes| megabytes(kilobytes * 1024)),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_rate_of_jobs_is_the_bound_of_the_benchmark() {
        let documented = include_str!("../../../docs/benchmarks.md");
        let line = documented
            .lines()
            .find(|line| line.starts_with("jobs per minute over 4 slots"));
        let bound = format!("at least {LEAST_JOBS_PER_MINUTE} jobs");
        assert!(line.is_some_and(|line| line.ends_with(&bound)), "{line:?}");
    }
}
