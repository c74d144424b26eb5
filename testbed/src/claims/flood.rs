//! Many quick jobs in a row leave nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use github_sim::{Conclusion, JobSpec, JobState, JobView, Standing};
use status::Verdict;

use super::common::{SOON, await_no_strangers, daemon_pid, finish_held, run, start_held};
use super::fixture::{Fixture, small};
use super::suite::{Suite, suite};
use crate::bed::note;
use crate::lab::{DAEMON, Lab};
use crate::readings::{is_staffed, summary};
use crate::sim::{planted_runner, pool_job};
use crate::wait::{Seen, wait_until};

/// One pool of four slots for many quick jobs.
pub(super) const FIXTURE: Fixture = Fixture {
    name: "four slots",
    config: |lab| {
        Ok(Some(small(lab.sim().api_url()).with("ci", |pool| {
            pool.min_idle = 3;
            pool.min_spare = 1;
        })))
    },
    await_ready,
};

pub(super) const SUITE: Suite = suite![FIXTURE;
    a_runner_that_lost_its_job_to_another_delays_no_job,
    two_hundred_jobs_leak_nothing,
    a_registration_without_a_container_is_deleted,
    a_ghost_is_found_and_replaced,
];

const JOBS: usize = 200;
/// Timeout for all of them. Each takes a second on two shared cores.
const LIMIT: Duration = Duration::from_secs(400);
/// Interval between two reconciles of the pools.
const RECONCILE: Duration = Duration::from_secs(2);
/// Timeout for what the daemon does only after GitHub's list had time to become consistent: it
/// replaces a missing runner and deletes a registration without a container.
const PATIENCE: Duration = Duration::from_mins(3);
/// Name of a planted registration that no container has.
const STRAY: &str = "testhost-ci-4-0badcafe";

/// Waits for the numbers alone, because a ghost counts as idle and an orphaned registration
/// stays for minutes.
fn await_ready(lab: &Lab) -> Result<()> {
    lab.await_status("the pool to be as it is wanted", SOON, |status| {
        is_staffed(status).then_some(())
    })
}

/// Begins what the last two claims wait for minutes for. The flood runs meanwhile.
fn a_runner_that_lost_its_job_to_another_delays_no_job(lab: &mut Lab) -> Result<()> {
    plant_stray(lab)?;
    let id = lab.sim().queue(&lost_once())?;
    let job = lab.sim().await_success(id, SOON)?;
    ensure!(
        job.attempts == 2,
        "{} ran it {} times",
        job.summary(),
        job.attempts
    );
    run(lab, "true").map(drop)
}

/// Returns a job that one runner acquires too late, which makes it a ghost.
fn lost_once() -> JobSpec {
    JobSpec {
        lose_races: 1,
        ..pool_job("raced", "ci", "true")
    }
}

fn plant_stray(lab: &Lab) -> Result<()> {
    lab.sim().plant(&[planted_runner(STRAY)])
}

fn is_registered(lab: &Lab, name: &str) -> Result<bool> {
    let runners = lab.sim().runners()?;
    Ok(runners
        .iter()
        .any(|runner| runner.name == name && runner.standing == Standing::Registered))
}

/// Resources of the daemon's process.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    kept: usize,
    resident_kib: usize,
}

fn held(lab: &Lab) -> Result<Held> {
    let pid = daemon_pid(lab)?;
    let descriptors = fs::read_dir(lab.host().path(&format!("/proc/{pid}/fd")))?.count();
    let status = fs::read_to_string(lab.host().path(&format!("/proc/{pid}/status")))?;
    let resident_kib = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .context("no VmRSS")?;
    Ok(Held {
        descriptors,
        kept: lab.show(DAEMON, "NFileDescriptorStore")?.parse()?,
        resident_kib,
    })
}

fn two_hundred_jobs_leak_nothing(lab: &mut Lab) -> Result<()> {
    // All four slots had a runner, so that their descriptors are counted before as well.
    let before = held(lab)?;
    lab.sim().forget_calls()?;
    let start = Instant::now();
    let jobs: Vec<JobSpec> = (0..JOBS)
        .map(|number| {
            pool_job(
                &format!("quick-{number}"),
                "ci",
                "echo \"machine $(cat /etc/machine-id)\"",
            )
        })
        .collect();
    let ids: BTreeSet<u64> = lab.sim().queue_all(&jobs)?.into_iter().collect();
    let done: Vec<JobView> = wait_until("200 jobs", LIMIT, || {
        let jobs: Vec<JobView> = lab
            .sim()
            .jobs()?
            .into_iter()
            .filter(|job| ids.contains(&job.id))
            .collect();
        let open = jobs
            .iter()
            .filter(|job| job.status != JobState::Completed)
            .count();
        Ok(if open == 0 {
            Seen::Done(jobs)
        } else {
            let status = lab
                .look()
                .map_or_else(|error| format!("{error:#}"), |status| summary(&status));
            Seen::NotYet(format!("{open} jobs to go; {status}"))
        })
    })?;
    let took = start.elapsed();
    let calls = lab.sim().stats()?;
    ensure_once_each(&done)?;

    let rest = calls.rest_calls();
    let lists = calls.calls_of("list");
    let per_job = f64::from(u32::try_from(rest - lists)?) / f64::from(u32::try_from(JOBS)?);
    // A pool without a runner that is known to be online has three lists more in a minute.
    let early = 3 * (took.as_secs() / 60 + 1);
    let reconciles = u64::try_from(took.as_millis() / RECONCILE.as_millis())? + 2 + early;
    // Meanwhile the daemon also deletes an orphaned registration and replaces a ghost.
    ensure!(
        per_job <= 1.05,
        "{per_job:.3} calls per job: {:?}",
        calls.calls
    );
    ensure!(
        lists <= reconciles,
        "{lists} lists in {reconciles} compares: {:?}",
        calls.calls
    );
    let unconditional = calls
        .requests
        .iter()
        .filter(|request| request.endpoint == "list" && !request.conditional)
        .count();
    ensure!(
        unconditional == 0,
        "{unconditional} lists were not conditional"
    );

    lab.host()
        .run(&["runner-controller", "drain", "--wait", "--timeout", "60s"])
        .or_else(|error| {
            // The orphaned registration may not be old enough yet.
            if format!("{error:#}").contains(STRAY) {
                Ok(String::new())
            } else {
                Err(error)
            }
        })?;
    lab.await_nothing_left(SOON)?;
    lab.api("POST", "/undrain")?;
    await_ready(lab)?;
    let after = held(lab)?;
    ensure!(
        after.kept <= before.kept.max(4 * 4) && after.descriptors <= before.descriptors + 4,
        "before {before:?}, after {after:?}"
    );
    note(&format!(
        "{JOBS} jobs in {:.1} s, {:.2} calls of GitHub each and {lists} lists; the daemon has {:.1} MiB resident ({:.1} before) and {} descriptors",
        took.as_secs_f64(),
        per_job,
        mib(after.resident_kib)?,
        mib(before.resident_kib)?,
        after.descriptors
    ));
    Ok(())
}

fn mib(kib: usize) -> Result<f64> {
    Ok(f64::from(u32::try_from(kib)?) / 1024.0)
}

/// Checks that every job succeeded, on one runner, in a container that ran no other job.
fn ensure_once_each(jobs: &[JobView]) -> Result<()> {
    ensure!(jobs.len() == JOBS, "{} jobs", jobs.len());
    let mut runners = BTreeSet::new();
    let mut machines = BTreeSet::new();
    for job in jobs {
        ensure!(
            job.conclusion == Some(Conclusion::Success) && job.attempts == 1,
            "{}, {} attempts",
            job.summary(),
            job.attempts
        );
        runners.extend(job.runner_name.clone());
        let said = job.facts.log_tail.lines();
        machines.extend(
            said.filter_map(|line| line.strip_prefix("machine "))
                .map(str::to_owned),
        );
    }
    ensure!(
        runners.len() == JOBS && machines.len() == JOBS,
        "{} runners and {} containers",
        runners.len(),
        machines.len()
    );
    Ok(())
}

fn a_registration_without_a_container_is_deleted(lab: &mut Lab) -> Result<()> {
    if lab
        .sim()
        .runners()?
        .iter()
        .all(|runner| runner.name != STRAY)
    {
        plant_stray(lab)?;
    }
    wait_until("the stray to be deleted", PATIENCE, || {
        Ok(if is_registered(lab, STRAY)? {
            Seen::NotYet(summary(&lab.look()?))
        } else {
            Seen::Done(())
        })
    })?;
    lab.await_status("no more strays", SOON, |status| {
        status.strays.is_empty().then_some(())
    })?;
    await_no_strangers(lab)
}

fn a_ghost_is_found_and_replaced(lab: &mut Lab) -> Result<()> {
    let ghosts = |lab: &Lab| -> Result<Vec<String>> {
        let runners = lab.sim().runners()?.into_iter();
        Ok(runners
            .filter(|runner| runner.standing == Standing::Ghost)
            .map(|runner| runner.name)
            .collect())
    };
    if ghosts(lab)?.is_empty() {
        let id = lab.sim().queue(&lost_once())?;
        lab.sim().await_success(id, SOON)?;
    }
    let ghost = ghosts(lab)?.pop().context("the stand-in made no ghost")?;
    // It listens for jobs that GitHub never sends. Its end may be too old for the status
    // document.
    wait_until("the ghost to be gone", PATIENCE, || {
        let status = lab.look()?;
        Ok(if status.runner(&ghost).is_some() {
            Seen::NotYet(summary(&status))
        } else {
            Seen::Done(())
        })
    })?;
    let counted = lab
        .look()?
        .pool("ci")
        .and_then(|pool| pool.verdicts.get(&Verdict::Ghost).copied());
    ensure!(counted == Some(1), "{counted:?} ghosts");
    lab.api("POST", "/undrain")?;
    lab.await_settled(SOON)?;
    let (id, busy) = start_held(lab, "after")?;
    finish_held(lab, id, &busy)?;
    await_no_strangers(lab)
}
