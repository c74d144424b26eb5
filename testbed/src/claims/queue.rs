//! A pool whose demand is the queue of a repository, without a webhook.

use anyhow::{Result, ensure};
use github_sim::JobState;
use status::PhaseKind;

use super::common::{SOON, ensure_says, held, release};
use super::fixture::{Fixture, small};
use super::suite::{Suite, suite};
use crate::binaries::CONTROLLER;
use crate::lab::Lab;

pub(super) const SUITE: Suite = suite![QUEUED;
    a_pool_at_zero_starts_for_a_job_that_its_queue_shows,
];

/// The fixture `small` with a pool that has no runner while nothing waits.
const QUEUED: Fixture = Fixture {
    name: "queued",
    config: |lab| {
        let config = small(lab.sim().api_url()).with("ci", |pool| {
            (pool.min_idle, pool.min_spare) = (0, 0);
            pool.more += "demand = \"queue\"\nscale_down_after = \"1s\"\n";
        });
        Ok(Some(config))
    },
    await_ready: |lab| await_reading(lab, "a reading of the queue"),
};

/// Waits until the daemon has read the queue.
fn await_reading(lab: &Lab, what: &str) -> Result<()> {
    lab.await_status(what, SOON, |status| {
        let queue = status.demand.as_ref()?.queues.first()?;
        queue.last_unix_ms.map(drop)
    })
}

/// Waits until the pool has no runner.
fn await_none(lab: &Lab) -> Result<()> {
    lab.await_status("a pool without a runner", SOON, |status| {
        status.pools[0].runners.is_empty().then_some(())
    })
}

fn a_pool_at_zero_starts_for_a_job_that_its_queue_shows(lab: &mut Lab) -> Result<()> {
    await_none(lab)?;
    // A daemon reads the queue as soon as it starts, and then every 30 seconds.
    lab.kill()?;
    let job = lab.sim().queue(&held("found"))?;
    lab.start()?;
    lab.sim().await_job(job, JobState::InProgress, SOON)?;
    let machine = lab.await_status("the job's runner", SOON, |status| {
        let runners = &status.pools[0].runners;
        let busy = runners
            .iter()
            .find(|runner| runner.phase == PhaseKind::Busy)?;
        (runners.len() == 1).then(|| busy.slot.to_string())
    })?;
    let shown = lab.host().run(&[CONTROLLER, "jobs"])?;
    ensure_says(&shown, &["1 runs in the queue", "acme/widgets"])?;
    ensure!(!shown.contains("no delivery"), "{shown}");

    release(lab, &machine)?;
    lab.sim().await_success(job, SOON)?;
    await_none(lab)?;
    // The next daemon learns of the job's end, and starts nothing.
    lab.kill()?;
    lab.start()?;
    await_reading(lab, "a reading after the job's end")?;
    await_none(lab)
}
