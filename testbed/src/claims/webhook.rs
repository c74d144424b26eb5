//! GitHub's deliveries reach the daemon, which knows the queue through kills and faults.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use github_sim::{DeliveryView, Endpoint, Fault, JobSpec, WebhookFault};
use status::{DeliveryOutcome, DemandStatus, JobRow, JobStage};

use super::common::{SOON, ensure_says, finish_held, start_held};
use super::fixture::{Fixture, await_settled, small};
use super::suite::{Suite, suite};
use crate::binaries::CONTROLLER;
use crate::config::Config;
use crate::hook::{self, SECRET};
use crate::lab::{DAEMON, Lab, TOKEN};
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![HOOKED;
    a_delivery_shows_its_job_from_the_queue_to_its_end,
    a_daemon_killed_between_deliveries_loses_and_doubles_no_job,
    forged_doubled_late_and_reordered_deliveries_have_no_wrong_effect,
    jobs_whose_deliveries_are_lost_are_read_from_the_api,
];

/// The fixture `small` with a hook of its repository.
pub(super) const HOOKED: Fixture = Fixture {
    name: "hooked",
    config: |lab| hooked(lab, small(lab.sim().api_url())).map(Some),
    await_ready: await_settled,
};

/// Gives the repository a hook and the host a listener for it.
pub(super) fn hooked(lab: &Lab, mut config: Config) -> Result<Config> {
    config.top = hook::add(lab, "acme/widgets")?;
    Ok(config)
}

/// Label that no pool has, so that a job with it waits until it is cancelled.
const UNSERVED: &str = "gpu";
/// Kills of the daemon while deliveries arrive.
const KILLS: usize = 3;
/// Number of jobs that are queued at each kill.
const BURST: usize = 15;

/// Queues jobs that no pool serves.
fn queue(lab: &Lab, count: usize) -> Result<Vec<u64>> {
    let jobs = vec![JobSpec::new("waits", &["self-hosted", UNSERVED], "true"); count];
    lab.sim().queue_all(&jobs)
}

/// Lets GitHub's API tell nothing of jobs until faults are cleared, so that deliveries alone do.
pub(super) fn refuse_readings(lab: &Lab) -> Result<()> {
    for endpoint in [Endpoint::Runs, Endpoint::Job] {
        lab.sim().fault(endpoint, None, &Fault::status(503))?;
    }
    Ok(())
}

/// Waits until the daemon's demand is as wanted.
pub(super) fn await_demand<T>(
    lab: &Lab,
    what: &str,
    mut find: impl FnMut(&DemandStatus) -> Option<T>,
) -> Result<T> {
    lab.await_status(what, SOON, |status| find(status.demand.as_ref()?))
}

fn count(demand: &DemandStatus, outcome: DeliveryOutcome) -> u64 {
    let webhook = demand.webhook.as_ref();
    let count = webhook.and_then(|webhook| webhook.deliveries.get(&outcome));
    count.copied().unwrap_or_default()
}

/// Finds a job of the stand-in, each of which is the only one of its run and has the run's id.
fn row(rows: &[JobRow], job: u64) -> Option<JobRow> {
    rows.iter().find(|row| row.run_id == job).cloned()
}

fn was_accepted(attempt: &DeliveryView) -> bool {
    attempt.code == Some(202)
}

/// Waits until every delivery was sent, and returns those of jobs, by `X-GitHub-Delivery`.
pub(super) fn await_sent(lab: &Lab) -> Result<BTreeMap<String, Vec<DeliveryView>>> {
    wait_until("every delivery to be sent", SOON, || {
        let mut all = lab.sim().deliveries()?;
        all.retain(|delivery| delivery.event == "workflow_job");
        let waiting = all
            .iter()
            .filter(|delivery| delivery.code.is_none())
            .count();
        if waiting > 0 {
            return Ok(Seen::NotYet(format!("{waiting} wait")));
        }
        let mut by_guid: BTreeMap<String, Vec<DeliveryView>> = BTreeMap::new();
        for delivery in all {
            let attempts = by_guid.entry(delivery.guid.clone()).or_default();
            attempts.push(delivery);
        }
        Ok(Seen::Done(by_guid))
    })
}

/// Repeats each delivery of which no attempt was answered with 202. Returns their number.
fn redeliver_failed(lab: &Lab) -> Result<usize> {
    let mut failed = 0;
    for attempts in await_sent(lab)?.values() {
        if attempts.iter().any(was_accepted) {
            continue;
        }
        let last = attempts.last().context("a delivery has attempts")?;
        lab.sim().redeliver(last, TOKEN)?;
        failed += 1;
    }
    await_sent(lab)?;
    Ok(failed)
}

/// Cancels jobs, and waits until none of them is in the queue.
fn cancel(lab: &Lab, jobs: &[u64]) -> Result<()> {
    for id in jobs {
        lab.sim().cancel(*id)?;
    }
    await_demand(lab, "an empty queue", |demand| {
        (demand.unserved_count == 0).then_some(())
    })
}

fn a_delivery_shows_its_job_from_the_queue_to_its_end(lab: &mut Lab) -> Result<()> {
    let (id, busy) = start_held(lab, "told")?;
    let running = await_demand(lab, "the job to run", |demand| row(&demand.running, id))?;
    ensure!(
        running.machine.as_ref().map(ToString::to_string) == Some(busy.machine()),
        "{running:?} runs in {}",
        busy.machine()
    );
    let waits = queue(lab, 1)?;
    let waiting = await_demand(lab, "a job that no pool serves", |demand| {
        row(&demand.unserved, waits[0]).filter(|row| row.stage == JobStage::Queued)
    })?;
    finish_held(lab, id, &busy)?;
    let ended = await_demand(lab, "the job's end", |demand| row(&demand.ended, id))?;
    ensure!(
        ended.conclusion.map(|end| end.to_string()).as_deref() == Some("success"),
        "{ended:?}"
    );
    let host = lab.host();
    let shown = host.run(&[CONTROLLER, "jobs"])?;
    ensure_says(
        &shown,
        &[&ended.id.to_string(), &waiting.id.to_string(), UNSERVED],
    )?;
    cancel(lab, &waits)?;

    let test = [CONTROLLER, "webhook-test", "--labels", "ci"];
    let dry = host.run(&test)?;
    ensure_says(
        &dry,
        &["pool ci serves it", "accepts the secret", "dry run"],
    )?;
    let sent = host.run(&[&test[..], &["--send"]].concat())?;
    ensure_says(&sent, &["the daemon had it as queued for pool ci"])?;
    await_demand(lab, "the test's job to leave", |demand| {
        demand.waiting.is_empty().then_some(())
    })?;
    let journal = lab.journalctl(&["--unit", DAEMON, "--output=cat"])?;
    ensure!(
        !format!("{journal}{shown}{dry}{sent}").contains(SECRET),
        "the secret is shown"
    );
    Ok(())
}

fn a_daemon_killed_between_deliveries_loses_and_doubles_no_job(lab: &mut Lab) -> Result<()> {
    let mut jobs: Vec<u64> = Vec::new();
    refuse_readings(lab)?;
    for _ in 0..KILLS {
        let (known, before) = (await_sent(lab)?, jobs.len());
        jobs.extend(queue(lab, BURST)?);
        lab.kill()?;
        // Nothing listens, so GitHub lists the deliveries of these as failed.
        jobs.extend(queue(lab, BURST)?);
        await_sent(lab)?;
        lab.start()?;
        let sent = await_sent(lab)?;
        let new = sent.iter().filter(|(guid, _)| !known.contains_key(*guid));
        let accepted = new.filter(|(_, attempts)| attempts.iter().any(was_accepted));
        let least = u64::try_from(before + accepted.count())?;
        await_demand(lab, "every job that was answered with 202", |demand| {
            (demand.unserved_count >= least).then_some(())
        })?;
        let failed = redeliver_failed(lab)?;
        ensure!(failed >= BURST, "only {failed} deliveries failed");
        let all = u64::try_from(jobs.len())?;
        await_demand(lab, "each job once", |demand| {
            (demand.unserved_count == all).then_some(())
        })?;
    }
    // A delivery that had its effect before the kill has none after it.
    let sent = await_sent(lab)?;
    let done = sent
        .values()
        .flatten()
        .find(|attempt| attempt.action.as_deref() == Some("queued") && was_accepted(attempt));
    // Those of which the killed daemon had put the effect on record, and not answered, are duplicates already.
    let before = await_demand(lab, "the deliveries so far", |demand| {
        Some(count(demand, DeliveryOutcome::Duplicate))
    })?;
    lab.sim()
        .redeliver(done.context("no delivery arrived")?, TOKEN)?;
    let all = u64::try_from(jobs.len())?;
    await_demand(lab, "a duplicate", |demand| {
        let is_known = count(demand, DeliveryOutcome::Duplicate) > before;
        (is_known && demand.unserved_count == all).then_some(())
    })?;
    cancel(lab, &jobs)?;
    lab.sim().clear_faults()
}

fn forged_doubled_late_and_reordered_deliveries_have_no_wrong_effect(lab: &mut Lab) -> Result<()> {
    let before = await_demand(lab, "the demand", |demand| Some(demand.clone()))?;
    let more = |demand: &DemandStatus, outcome| count(demand, outcome) - count(&before, outcome);
    let sim = lab.sim();

    sim.webhook_fault("queued", WebhookFault::Forged)?;
    let forged = queue(lab, 1)?;
    await_demand(lab, "a forged delivery", |demand| {
        (more(demand, DeliveryOutcome::WrongSignature) == 1).then_some(())
    })?;

    sim.webhook_fault("queued", WebhookFault::Doubled)?;
    let doubled = queue(lab, 1)?;
    let demand = await_demand(lab, "a doubled delivery", |demand| {
        (more(demand, DeliveryOutcome::Duplicate) == 1).then(|| demand.clone())
    })?;
    ensure!(
        demand.unserved_count == 1
            && row(&demand.unserved, doubled[0]).is_some()
            && row(&demand.unserved, forged[0]).is_none(),
        "the queue after a forged and a doubled delivery: {:?}",
        demand.unserved
    );

    sim.webhook_fault("queued", WebhookFault::Late { ms: 2_500 })?;
    let late = queue(lab, 1)?;
    let shown = await_demand(lab, "a late delivery", |demand| {
        row(&demand.unserved, late[0])
    })?;
    let created = sim.job(late[0])?.created_at;
    ensure!(
        shown.queued_unix_ms.abs_diff(created) <= 1_000,
        "GitHub queued it at {created}, and it is shown as {shown:?}"
    );

    // The job's end arrives before its start in the queue.
    let accepted = await_demand(lab, "the deliveries so far", |demand| {
        Some(count(demand, DeliveryOutcome::Accepted))
    })?;
    sim.webhook_fault("queued", WebhookFault::Swapped)?;
    let reordered = queue(lab, 1)?;
    sim.cancel(reordered[0])?;
    let demand = await_demand(lab, "both deliveries", |demand| {
        (count(demand, DeliveryOutcome::Accepted) == accepted + 2).then(|| demand.clone())
    })?;
    ensure!(
        demand.unserved_count == 2 && row(&demand.unserved, reordered[0]).is_none(),
        "a job that ended waits: {:?}",
        demand.unserved
    );
    cancel(lab, &[forged[0], doubled[0], late[0]])
}

fn jobs_whose_deliveries_are_lost_are_read_from_the_api(lab: &mut Lab) -> Result<()> {
    let lost = |lab: &mut Lab, act: &dyn Fn(&Lab) -> Result<Vec<u64>>| {
        lab.kill()?;
        let jobs = act(lab)?;
        await_sent(lab)?;
        lab.start()?;
        anyhow::Ok(jobs)
    };
    let jobs = lost(lab, &|lab| queue(lab, 3))?;
    let all = u64::try_from(jobs.len())?;
    let demand = await_demand(lab, "the jobs whose deliveries failed", |demand| {
        (demand.unserved_count == all).then(|| demand.clone())
    })?;
    ensure!(
        count(&demand, DeliveryOutcome::Accepted) == 0,
        "deliveries told of the jobs: {demand:?}"
    );
    let created = lab.sim().job(jobs[0])?.created_at;
    let shown = row(&demand.unserved, jobs[0]).context("the first job")?;
    ensure!(
        shown.queued_unix_ms.abs_diff(created) <= 1_000,
        "GitHub queued it at {created}, and it is shown as {shown:?}"
    );

    // GitHub's refusal takes nothing away.
    refuse_readings(lab)?;
    lost(lab, &|lab| {
        lab.sim().cancel(jobs[0])?;
        Ok(Vec::new())
    })?;
    let demand = await_demand(lab, "a reading that fails", |demand| {
        let failed = demand.queues.iter().any(|queue| queue.error.is_some());
        failed.then(|| demand.clone())
    })?;
    ensure!(demand.unserved_count == all, "jobs left: {demand:?}");
    let shown = lab.host().run(&[CONTROLLER, "jobs"])?;
    ensure_says(&shown, &["the last reading failed: list runs", "503"])?;

    lab.sim().clear_faults()?;
    lost(lab, &|lab| {
        for id in &jobs[1..] {
            lab.sim().cancel(*id)?;
        }
        Ok(Vec::new())
    })?;
    await_demand(lab, "the ends whose deliveries failed", |demand| {
        (demand.unserved_count == 0).then_some(())
    })
}
