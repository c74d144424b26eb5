//! Pools at zero, whose demand is the jobs that wait: by deliveries, or by the queue of a repository.

use anyhow::{Result, ensure};
use github_sim::{Endpoint, Fault, JobSpec, JobState};
use status::PhaseKind;

use super::common::{SOON, ensure_says, held, kill_and_start, release};
use super::fixture::{Fixture, small};
use super::suite::{Suite, suite};
use super::webhook::{await_demand, await_sent, hooked, refuse_readings};
use crate::binaries::CONTROLLER;
use crate::config::Config;
use crate::lab::Lab;

pub(super) const QUEUED_SUITE: Suite = suite![QUEUED;
    a_pool_at_zero_starts_for_a_job_that_its_queue_shows,
    a_daemon_killed_at_each_step_serves_each_job_of_a_queue_once,
];

pub(super) const HOOKED_SUITE: Suite = suite![HOOKED;
    a_pool_at_zero_starts_for_a_delivery_and_returns_to_zero,
    a_daemon_killed_between_a_delivery_and_the_start_starts_one_runner,
    a_job_that_is_cancelled_in_the_queue_leaves_no_runner,
    a_delivery_that_failed_without_a_daemon_is_asked_for,
    // Deliveries fail while it has no daemon, which later daemons ask for.
    a_daemon_killed_at_each_step_serves_each_delivered_job_once,
];

/// The fixture `small` with a pool that follows the queue of its repository.
const QUEUED: Fixture = Fixture {
    name: "queued",
    config: |lab| Ok(Some(at_zero(lab, "queue"))),
    await_ready: |lab| await_reading(lab, "a reading of the queue"),
};

/// The fixture `small` with a pool that follows deliveries, and with readings refused, so that nothing else tells of jobs.
const HOOKED: Fixture = Fixture {
    name: "hooked at zero",
    config: |lab| {
        refuse_readings(lab)?;
        hooked(lab, at_zero(lab, "webhook")).map(Some)
    },
    await_ready: await_none,
};

/// Returns a configuration whose pool has no runner while nothing waits.
pub(super) fn at_zero(lab: &Lab, demand: &str) -> Config {
    small(lab.sim().api_url()).with("ci", |pool| {
        (pool.min_idle, pool.min_spare) = (0, 0);
        pool.more = format!("demand = \"{demand}\"\nscale_down_after = \"1s\"\n");
    })
}

/// Waits until the daemon has read the queue.
fn await_reading(lab: &Lab, what: &str) -> Result<()> {
    lab.await_status(what, SOON, |status| {
        let queue = status.demand.as_ref()?.queues.first()?;
        queue.last_unix_ms.map(drop)
    })
}

/// Waits until the pool has no runner.
pub(super) fn await_none(lab: &Lab) -> Result<()> {
    lab.await_status("a pool without a runner", SOON, |status| {
        status.pools[0].runners.is_empty().then_some(())
    })
}

/// Waits until the pool's only runner has the job, and returns its machine.
pub(super) fn await_only_runner(lab: &Lab, job: u64) -> Result<String> {
    lab.sim().await_job(job, JobState::InProgress, SOON)?;
    lab.await_status("the job's runner alone", SOON, |status| {
        let runners = &status.pools[0].runners;
        let busy = runners
            .iter()
            .find(|runner| runner.phase == PhaseKind::Busy)?;
        (runners.len() == 1).then(|| busy.slot.to_string())
    })
}

fn mints(lab: &Lab) -> Result<u64> {
    Ok(lab.sim().stats()?.calls_of("mint"))
}

/// Ends the job, and makes sure that its runner was the only one registered since `before`.
fn finish_alone(lab: &Lab, job: u64, machine: &str, before: u64) -> Result<()> {
    release(lab, machine)?;
    lab.sim().await_success(job, SOON)?;
    await_none(lab)?;
    let minted = mints(lab)? - before;
    ensure!(minted == 1, "{minted} runners were registered for one job");
    Ok(())
}

fn a_pool_at_zero_starts_for_a_job_that_its_queue_shows(lab: &mut Lab) -> Result<()> {
    await_none(lab)?;
    // A daemon reads the queue as soon as it starts, and then every 30 seconds.
    lab.kill()?;
    let job = lab.sim().queue(&held("found"))?;
    lab.start()?;
    let machine = await_only_runner(lab, job)?;
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

fn a_pool_at_zero_starts_for_a_delivery_and_returns_to_zero(lab: &mut Lab) -> Result<()> {
    let before = mints(lab)?;
    let job = lab.sim().queue(&held("woken"))?;
    let machine = await_only_runner(lab, job)?;
    let plan = lab.host().run(&[CONTROLLER, "plan"])?;
    ensure_says(&plan, &["ci"])?;
    finish_alone(lab, job, &machine, before)
}

fn a_daemon_killed_between_a_delivery_and_the_start_starts_one_runner(lab: &mut Lab) -> Result<()> {
    let before = mints(lab)?;
    // Nothing starts while the host drains, so the kill comes between the delivery and the start.
    lab.host().run(&[CONTROLLER, "drain"])?;
    let job = lab.sim().queue(&held("recorded"))?;
    await_demand(lab, "the job on record", |demand| {
        (demand.waiting.len() == 1).then_some(())
    })?;
    lab.kill()?;
    lab.start()?;
    await_none(lab)?;
    lab.host().run(&[CONTROLLER, "undrain"])?;
    let machine = await_only_runner(lab, job)?;
    lab.kill()?;
    lab.start()?;
    finish_alone(lab, job, &machine, before)
}

fn a_daemon_killed_at_each_step_serves_each_delivered_job_once(lab: &mut Lab) -> Result<()> {
    let heal = |lab: &Lab| {
        lab.sim().clear_faults()?;
        refuse_readings(lab)
    };
    kill_at_each_step(lab, &STEPS, Endpoint::Mint, heal, |lab| {
        lab.sim().queue(&waiting())
    })
}

fn a_daemon_killed_at_each_step_serves_each_job_of_a_queue_once(lab: &mut Lab) -> Result<()> {
    let heal = |lab: &Lab| lab.sim().clear_faults();
    kill_at_each_step(lab, &STEPS, Endpoint::Mint, heal, |lab| {
        // A daemon reads the queue as soon as it starts, and then every 30 seconds.
        lab.kill()?;
        let job = lab.sim().queue(&waiting())?;
        lab.start()?;
        Ok(job)
    })
}

/// Steps of a runner, from its start to its end.
const STEPS: [PhaseKind; 5] = [
    PhaseKind::Booting,
    PhaseKind::Spare,
    PhaseKind::Idle,
    PhaseKind::Busy,
    PhaseKind::Retiring,
];

/// Returns a job that GitHub gives to a runner, and that ends, when the test wants it.
fn waiting() -> JobSpec {
    let mut job = held("through kills");
    job.hold = true;
    job
}

/// Kills the daemon at each of these steps of a runner, for one job each. `queue` queues a job, and
/// `mint` is the call that registers a runner, which fails until `heal`.
pub(super) fn kill_at_each_step(
    lab: &Lab,
    steps: &[PhaseKind],
    mint: Endpoint,
    heal: impl Fn(&Lab) -> Result<()>,
    queue: impl Fn(&Lab) -> Result<u64>,
) -> Result<()> {
    use PhaseKind::{Booting, Busy, Idle, Spare};
    for step in steps.iter().copied() {
        let before = lab.sim().runners()?.len();
        if step == Spare {
            lab.sim().fault(mint, None, &Fault::status(503))?;
        }
        let job = queue(lab)?;
        match step {
            // A boot is short, so the kill comes as soon as the daemon shows anything.
            Booting => await_phase(lab, &[Booting, Spare, Idle])?,
            Spare => await_phase(lab, &[Spare])?,
            Idle | Busy | PhaseKind::Minting | PhaseKind::Registering | PhaseKind::Retiring => {
                await_phase(lab, &[Idle, Busy])?;
            }
        }
        let machine = if step == Busy || step == PhaseKind::Retiring {
            lab.sim().let_go(job)?;
            Some(await_only_runner(lab, job)?)
        } else {
            None
        };
        if step == PhaseKind::Retiring {
            // The runner ends while the daemon is away.
            lab.kill()?;
            release(lab, machine.as_deref().unwrap_or_default())?;
            lab.sim().await_success(job, SOON)?;
            lab.start()?;
        } else {
            kill_and_start(lab)?;
            if step == Spare {
                heal(lab)?;
            }
            lab.sim().let_go(job)?;
            let now = await_only_runner(lab, job)?;
            ensure!(
                machine.as_ref().is_none_or(|machine| *machine == now),
                "{now} has the job of {machine:?}"
            );
            release(lab, &now)?;
            lab.sim().await_success(job, SOON)?;
        }
        await_none(lab)?;
        let job = lab.sim().job(job)?;
        ensure!(job.assignments.len() == 1, "killed while {step}: {job:?}");
        let registered = lab.sim().runners()?.len() - before;
        ensure!(
            registered == 1,
            "killed while {step}: {registered} runners for one job"
        );
    }
    Ok(())
}

/// Waits until a runner of the pool is in one of these phases.
fn await_phase(lab: &Lab, phases: &[PhaseKind]) -> Result<()> {
    lab.await_status(&format!("a runner in {phases:?}"), SOON, |status| {
        let mut runners = status.pools[0].runners.iter();
        runners
            .any(|runner| phases.contains(&runner.phase))
            .then_some(())
    })
}

fn a_job_that_is_cancelled_in_the_queue_leaves_no_runner(lab: &mut Lab) -> Result<()> {
    let mut waits = held("cancelled");
    // GitHub keeps it in the queue, although a runner is idle.
    waits.hold = true;
    let job = lab.sim().queue(&waits)?;
    lab.await_status("an idle runner for the job", SOON, |status| {
        let mut runners = status.pools[0].runners.iter();
        runners
            .find(|runner| runner.phase == PhaseKind::Idle)
            .map(drop)
    })?;
    lab.sim().cancel(job)?;
    await_none(lab)?;
    let registered = lab.sim().registered()?;
    ensure!(registered.is_empty(), "GitHub still has {registered:?}");
    Ok(())
}

fn a_delivery_that_failed_without_a_daemon_is_asked_for(lab: &mut Lab) -> Result<()> {
    // Nothing else may tell of the job. Faults end with each claim.
    refuse_readings(lab)?;
    // The first delivery tells of the hook, and the next daemon has it from the records.
    let before = mints(lab)?;
    let first = lab.sim().queue(&held("told"))?;
    let machine = await_only_runner(lab, first)?;
    finish_alone(lab, first, &machine, before)?;

    let (before, asked) = (mints(lab)?, asks(lab)?);
    lab.kill()?;
    let job = lab.sim().queue(&held("missed"))?;
    await_sent(lab)?;
    lab.start()?;
    let machine = await_only_runner(lab, job)?;
    let shown = lab.host().run(&[CONTROLLER, "jobs"])?;
    ensure_says(&shown, &["asked for 1 once more"])?;
    finish_alone(lab, job, &machine, before)?;
    let asked = asks(lab)? - asked;
    ensure!(
        asked == 1,
        "GitHub was asked {asked} times for one delivery"
    );
    Ok(())
}

/// Returns the number of deliveries that GitHub was asked for once more.
fn asks(lab: &Lab) -> Result<u64> {
    Ok(lab.sim().stats()?.calls_of("hook_attempt"))
}
