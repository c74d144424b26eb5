//! Pools whose jobs GitHub assigns to a scale set, through the deaths of the daemon, of its session and of the set.

use anyhow::{Context, Result, ensure};
use github_sim::{Endpoint, Fault, JobState, ScaleSetCall, ScaleSetView};
use serde_json::json;
use status::{PhaseKind, ScaleSetStatus, SetState};

use super::common::{SOON, ensure_says, held, kill_and_start, release};
use super::demand::{at_zero, await_none, await_only_runner, kill_at_each_step};
use super::fixture::Fixture;
use super::suite::{Suite, suite};
use crate::binaries::CONTROLLER;
use crate::lab::Lab;
use crate::sim::pool_job;

pub(super) const SCALE_SET_SUITE: Suite = suite![SET;
    a_pool_at_zero_is_served_by_its_scale_set_and_returns_to_zero,
    a_burst_for_a_scale_set_runs_each_job_once_within_the_announced_capacity,
    a_daemon_killed_before_and_during_a_job_of_a_scale_set_loses_and_doubles_none,
    a_daemon_killed_at_each_step_serves_each_job_of_a_scale_set_once,
    a_lost_session_and_a_lost_scale_set_heal_in_place,
    a_drained_host_announces_no_capacity_to_its_scale_set,
];

/// The fixture `small` with a pool that follows its scale set. GitHub ends a session that was not closed after 5 s.
const SET: Fixture = Fixture {
    name: "scale set at zero",
    config: |lab| {
        lab.sim()
            .set(&json!({"scale_sets": {"session_lapse_ms": 5_000}}))?;
        Ok(Some(at_zero(lab, "scale-set")))
    },
    await_ready: |lab| {
        await_listening(lab)?;
        await_none(lab)
    },
};

fn await_set(
    lab: &Lab,
    what: &str,
    good: impl Fn(&ScaleSetStatus) -> bool,
) -> Result<ScaleSetStatus> {
    lab.await_status(what, SOON, |status| {
        let set = status.demand.as_ref()?.scale_sets.first()?;
        good(set).then(|| set.clone())
    })
}

fn await_listening(lab: &Lab) -> Result<()> {
    let is_good = |set: &ScaleSetStatus| set.state == SetState::Listening && set.error.is_none();
    await_set(lab, "an open session", is_good).map(drop)
}

/// Returns the only set that exists at GitHub.
fn set(lab: &Lab) -> Result<ScaleSetView> {
    let mut sets = lab.sim().scale_sets()?;
    sets.retain(|set| !set.deleted);
    ensure!(sets.len() == 1, "{sets:?}");
    sets.pop().context("a set")
}

/// Returns the number of runners that were ever registered.
fn registered(lab: &Lab) -> Result<usize> {
    Ok(lab.sim().runners()?.len())
}

/// Waits until GitHub counts no job for the set and the pool has no runner, and makes sure that `jobs` runners were
/// registered since `before`.
fn await_end(lab: &Lab, before: usize, jobs: usize) -> Result<()> {
    await_set(lab, "no assigned job", |set| set.assigned == Some(0))?;
    await_none(lab)?;
    let more = registered(lab)? - before;
    ensure!(
        more == jobs,
        "{more} runners were registered for {jobs} jobs"
    );
    let set = set(lab)?;
    ensure!(set.jobs.is_empty() && set.messages.is_empty(), "{set:?}");
    Ok(())
}

fn a_pool_at_zero_is_served_by_its_scale_set_and_returns_to_zero(lab: &mut Lab) -> Result<()> {
    let before = registered(lab)?;
    let job = lab.sim().queue(&held("assigned"))?;
    let machine = await_only_runner(lab, job)?;
    let shown = lab.host().run(&[CONTROLLER, "jobs"])?;
    let name = set(lab)?.name;
    ensure!(name.ends_with("-ci"), "{name}");
    ensure_says(
        &shown,
        &[
            &format!("scale set {name} of pool ci: listening"),
            "1 jobs assigned, room for 4",
            "acme/widgets",
        ],
    )?;
    release(lab, &machine)?;
    lab.sim().await_success(job, SOON)?;
    await_end(lab, before, 1)
}

fn a_burst_for_a_scale_set_runs_each_job_once_within_the_announced_capacity(
    lab: &mut Lab,
) -> Result<()> {
    let before = registered(lab)?;
    let jobs: Vec<_> = (0..10)
        .map(|number| pool_job(&format!("burst-{number}"), "ci", "sleep 1"))
        .collect();
    let ids = lab.sim().queue_all(&jobs)?;
    let most = set(lab)?.jobs.len();
    ensure!(most <= 4, "{most} jobs were assigned to four slots");
    for id in ids {
        let job = lab.sim().await_success(id, 4 * SOON)?;
        ensure!(job.assignments.len() == 1, "{job:?}");
    }
    await_end(lab, before, jobs.len())
}

fn a_daemon_killed_before_and_during_a_job_of_a_scale_set_loses_and_doubles_none(
    lab: &mut Lab,
) -> Result<()> {
    let before = registered(lab)?;
    // The message is on record, and no runner can be registered.
    let mint = Endpoint::ScaleSet(ScaleSetCall::SetMint);
    lab.sim().fault(mint, None, &Fault::status(503))?;
    let job = lab.sim().queue(&held("through kills"))?;
    lab.await_status("the job on record", SOON, |status| {
        let demand = status.demand.as_ref()?;
        (demand.waiting.len() == 1).then_some(())
    })?;
    kill_and_start(lab)?;
    // The session of the killed daemon is in the way, and the job on record has a spare.
    await_set(lab, "the earlier session", |set| {
        set.state == SetState::Occupied
    })?;
    lab.sim().clear_faults()?;
    let machine = await_only_runner(lab, job)?;
    kill_and_start(lab)?;
    await_listening(lab)?;
    ensure!(await_only_runner(lab, job)? == machine, "another runner");
    release(lab, &machine)?;
    let ended = lab.sim().await_success(job, SOON)?;
    ensure!(ended.assignments.len() == 1, "{ended:?}");
    await_end(lab, before, 1)
}

fn a_daemon_killed_at_each_step_serves_each_job_of_a_scale_set_once(lab: &mut Lab) -> Result<()> {
    use PhaseKind::{Booting, Busy, Retiring, Spare};
    let mint = Endpoint::ScaleSet(ScaleSetCall::SetMint);
    let heal = |lab: &Lab| lab.sim().clear_faults();
    // GitHub assigns no job that it keeps back, so an idle runner of the set gets its job at once.
    kill_at_each_step(lab, &[Booting, Spare, Busy, Retiring], mint, heal, |lab| {
        // GitHub assigns nothing while the session of the killed daemon is in the way.
        await_listening(lab)?;
        lab.sim().queue(&held("through kills"))
    })
}

fn a_lost_session_and_a_lost_scale_set_heal_in_place(lab: &mut Lab) -> Result<()> {
    let first = set(lab)?;
    lab.sim().evict_session(first.id)?;
    serve(lab, "after an eviction")?;
    lab.sim().lose_scale_set(first.id)?;
    serve(lab, "after the loss of the set")?;
    let second = set(lab)?;
    ensure!(
        second.id != first.id && second.name == first.name,
        "{second:?}"
    );
    ensure!(second.labels == first.labels, "{second:?}");
    Ok(())
}

/// Runs a job, which needs the set and its session.
fn serve(lab: &Lab, name: &str) -> Result<()> {
    let job = lab.sim().queue(&pool_job(name, "ci", "true"))?;
    lab.sim().await_success(job, 2 * SOON)?;
    await_none(lab)
}

fn a_drained_host_announces_no_capacity_to_its_scale_set(lab: &mut Lab) -> Result<()> {
    await_set(lab, "room", |set| set.capacity.is_some_and(|room| room > 0))?;
    lab.host().run(&[CONTROLLER, "drain"])?;
    await_set(lab, "no room", |set| set.capacity == Some(0))?;
    let job = lab.sim().queue(&held("kept at GitHub"))?;
    ensure!(set(lab)?.jobs.is_empty(), "a job was assigned");
    lab.host().run(&[CONTROLLER, "undrain"])?;
    lab.sim().await_job(job, JobState::InProgress, SOON)?;
    let machine = lab.await_status("the job's runner", SOON, |status| {
        let mut runners = status.pools[0].runners.iter();
        let busy = runners.find(|runner| runner.phase == PhaseKind::Busy)?;
        Some(busy.slot.to_string())
    })?;
    release(lab, &machine)?;
    lab.sim().await_success(job, SOON).map(drop)
}
