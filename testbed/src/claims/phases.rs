//! One runner from boot to verdict.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use github_sim::{Conclusion, Endpoint, Fault, JobState};
use status::{PhaseKind, Verdict};

use super::common::{
    SOON, await_busy, await_no_strangers, await_verdict, finish_held, held, idle, machine_of,
    run_jobs, spare,
};
use super::fixture::{SMALL, SMALL_MINIMAL};
use super::suite::{Suite, suite};
use crate::lab::Lab;
use crate::sim::pool_job;

pub(super) const SUITE: Suite = suite![SMALL;
    a_spare_waits_unregistered,
    a_job_passes_through_every_phase,
    a_job_runs_as_an_ordinary_user,
    no_job_sees_a_file_of_another,
    a_failed_job_is_a_job_done,
];

pub(super) const MINIMAL_SUITE: Suite = suite![SMALL_MINIMAL, "_in_a_minimal_image";
    a_spare_waits_unregistered,
    a_job_passes_through_every_phase,
    a_job_runs_as_an_ordinary_user,
    no_job_sees_a_file_of_another,
    a_failed_job_is_a_job_done,
];

fn a_spare_waits_unregistered(lab: &mut Lab) -> Result<()> {
    let status = lab.await_settled(SOON)?;
    let (idle, spare) = (idle(&status)?, spare(&status)?);
    let registered = lab.sim().registered()?;
    ensure!(
        Some(&registered) == idle.runner.clone().map(|name| vec![name]).as_ref(),
        "registered: {registered:?}"
    );
    ensure!(spare.runner.is_none(), "a spare has a name: {spare:?}");
    let active: BTreeSet<String> = lab
        .await_active(2, SOON)?
        .into_iter()
        .map(|container| container.machine)
        .collect();
    ensure!(
        active == BTreeSet::from([idle.machine(), spare.machine()]),
        "active: {active:?}"
    );
    Ok(())
}

fn a_job_passes_through_every_phase(lab: &mut Lab) -> Result<()> {
    // Delays that make each phase visible, because a mint and a listener's start take
    // milliseconds.
    lab.sim()
        .fault(Endpoint::Mint, None, &Fault::Delay { ms: 300 })?;
    let before = lab.await_settled(SOON)?;
    let first = idle(&before)?;
    let id = lab.sim().queue(&held("watched"))?;
    let mut seen = BTreeSet::new();
    lab.await_status(
        "booting, spare, minting, registering and busy",
        SOON,
        |status| {
            seen.extend(status.runners().map(|runner| runner.phase));
            [
                PhaseKind::Busy,
                PhaseKind::Minting,
                PhaseKind::Registering,
                PhaseKind::Booting,
            ]
            .iter()
            .all(|phase| seen.contains(phase))
            .then_some(())
        },
    )?;
    let busy = await_busy(lab, id)?;
    ensure!(
        busy.machine() == first.machine() && busy.invocation == first.invocation,
        "the idle runner {first:?} did not take the job, {busy:?} did"
    );
    let job = busy.job.clone().unwrap_or_default().note;
    ensure!(
        job.repository == "acme/widgets" && job.run_id == id.to_string(),
        "its hook said {job:?}"
    );
    ensure!(
        job.workflow == "ci" && job.job == "watched",
        "its hook said {job:?}"
    );
    finish_held(lab, id, &busy)?;
    let name = busy.runner.unwrap_or_default();
    let ended = await_verdict(lab, &name, Verdict::JobDone)?;
    ensure!(ended.job_ms.is_some(), "it had a job: {ended:?}");
    let after = lab.await_settled(SOON)?;
    ensure!(
        after.runner(&name).is_none() && !lab.sim().registered()?.contains(&name),
        "{name} is not gone"
    );
    // Its slot is vacant, or has another runner.
    let still = lab
        .containers()?
        .into_iter()
        .find(|container| container.invocation == busy.invocation);
    ensure!(still.is_none(), "its unit is not gone: {still:?}");
    await_no_strangers(lab)
}

fn a_job_runs_as_an_ordinary_user(lab: &mut Lab) -> Result<()> {
    let script = "id -un; systemd-detect-virt; cat /etc/hostname; grep Cap /proc/self/status; env";
    for job in run_jobs(lab, &[pool_job("look", "ci", script)])? {
        let said = &job.facts.log_tail;
        let name = job.runner_name.unwrap_or_default();
        let hostname = format!("testhost-{}", machine_of(&name));
        for line in [
            "runner",
            "systemd-nspawn",
            "CapEff:\t0000000000000000",
            &hostname,
        ] {
            ensure!(
                said.lines().any(|said| said == line),
                "no line {line:?} in: {said}"
            );
        }
        ensure!(job.facts.hostname == hostname, "{}", job.facts.hostname);
        ensure!(!said.contains("JITCONFIG"), "a job sees a config: {said}");
    }
    Ok(())
}

fn no_job_sees_a_file_of_another(lab: &mut Lab) -> Result<()> {
    // Twice as many jobs as slots: a slot gets a second runner, and no container a second job.
    let script = "for dir in /tmp /var/tmp /dev/shm /home/runner /home/runner/work /opt/actions-runner; do\n\
                  ls -A \"$dir\" | grep -x mine && exit 1\n\
                  touch \"$dir/mine\" || exit 2\n\
                  done\n\
                  echo \"machine $(cat /etc/machine-id)\"";
    let jobs = vec![pool_job("marks", "ci", script); 8];
    let mut runners = BTreeSet::new();
    let mut machines = BTreeSet::new();
    for job in run_jobs(lab, &jobs)? {
        let said = &job.facts.log_tail;
        machines.extend(
            said.lines()
                .find_map(|line| line.strip_prefix("machine "))
                .map(str::to_owned),
        );
        runners.insert(job.runner_name.unwrap_or_default());
    }
    ensure!(runners.len() == 8, "eight jobs ran on {runners:?}");
    ensure!(machines.len() == 8, "eight jobs ran in {machines:?}");
    Ok(())
}

fn a_failed_job_is_a_job_done(lab: &mut Lab) -> Result<()> {
    let bad = lab.sim().queue(&pool_job("bad", "ci", "exit 3"))?;
    let bad = lab.sim().await_job(bad, JobState::Completed, SOON)?;
    ensure!(
        bad.conclusion == Some(Conclusion::Failure),
        "{}",
        bad.summary()
    );
    await_verdict(lab, &bad.runner_name.unwrap_or_default(), Verdict::JobDone)?;
    run_jobs(lab, &[pool_job("good", "ci", "true")]).map(drop)
}
