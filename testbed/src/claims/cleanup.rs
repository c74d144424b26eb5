//! The two commands that destroy: `cleanup-github-runners` and `cleanup-all-containers`.

use std::process::Output;

use anyhow::{Result, ensure};
use github_sim::{Conclusion, JobState, PlantedRunner, Standing};
use serde_json::json;
use status::{DaemonState, Verdict};

use super::common::{
    SOON, await_no_strangers, ensure_says, quick_sweeps, run, slow_sweeps, start_held,
};
use super::fixture::SMALL;
use super::suite::{Suite, suite};
use crate::lab::Lab;
use crate::readings::summary;
use crate::sim::planted_runner;
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![SMALL;
    cleanup_of_github_deletes_only_this_hosts_stale_runners,
    cleanup_of_containers_leaves_nothing_and_refills,
    two_cleanups_of_containers_at_once_both_tell_the_truth,
    an_interrupted_cleanup_of_containers_is_not_healthy,
    cleanup_of_containers_can_stay_down,
    cleanup_of_containers_works_without_a_daemon,
];

fn output(lab: &Lab, command: &[&str]) -> Result<(Output, String)> {
    let output = lab.host().output(command)?;
    let said = [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat();
    Ok((output, said))
}

/// Returns the names of planted registrations that GitHub still has.
fn planted(lab: &Lab) -> Result<Vec<String>> {
    let runners = lab.sim().runners()?.into_iter();
    Ok(runners
        .filter(|runner| runner.planted && runner.standing == Standing::Registered)
        .map(|runner| runner.name)
        .collect())
}

fn cleanup_of_github_deletes_only_this_hosts_stale_runners(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let plant = |name: &str, status: &str, busy: bool| PlantedRunner {
        status: status.into(),
        busy,
        ..planted_runner(name)
    };
    // Three pages. The first and the last have registrations of this host.
    let mut all = vec![plant("testhost-ci-9-0000000a", "offline", false)];
    all.extend((0..244).map(|number| plant(&format!("foreign-{number}"), "offline", false)));
    let kept = [
        plant("testhost-ci-1-0000000b", "online", true),
        plant("testhost-ci-1-0000000c", "offline", true),
        plant("testhost-a-ci-1-0000000d", "offline", false),
        plant("testhos-ci-1-0000000e", "offline", false),
    ];
    all.extend(kept);
    all.push(plant("testhost-old-17-0000000f", "offline", false));
    lab.sim().plant(&all)?;
    let dead = ["testhost-ci-9-0000000a", "testhost-old-17-0000000f"];
    let (refused, said) = output(lab, &["cleanup-github-runners"])?;
    ensure!(!refused.status.success(), "it went ahead: {said}");
    ensure_says(&said, &dead)?;
    ensure_says(&said, &["--yes"])?;
    ensure!(
        planted(lab)?.len() == 250,
        "it deleted without being told to"
    );
    let ours = lab.sim().registered()?;
    let (done, said) = output(lab, &["cleanup-github-runners", "--yes"])?;
    ensure!(done.status.success(), "{said}");
    ensure_says(&said, &dead)?;
    let left = planted(lab)?;
    ensure!(
        left.len() == 248 && dead.iter().all(|name| !left.contains(&(*name).to_owned())),
        "{} are left: {said}",
        left.len()
    );
    ensure!(
        lab.sim().registered()? == ours,
        "a running runner was deleted"
    );
    let (again, said) = output(lab, &["cleanup-github-runners", "--yes"])?;
    ensure!(again.status.success() && said.contains("nothing"), "{said}");
    // Registrations of other hosts are not this host's to delete.
    let status = lab.await_settled(SOON)?;
    ensure!(status.strays.is_empty(), "{:?}", status.strays);
    for runner in lab.sim().runners()? {
        if runner.planted && runner.standing == Standing::Registered {
            lab.sim().delete_runner(runner.id)?;
        }
    }
    run(lab, "true").map(drop)
}

/// Runs the command and checks that nothing is left, as it says.
fn clean(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let mut command = vec!["cleanup-all-containers"];
    command.extend(arguments);
    let (done, said) = output(lab, &command)?;
    ensure!(done.status.success(), "{}: {said}", done.status);
    ensure_says(
        &said,
        &["Nothing is left", "Removed: ", " units, ", " links"],
    )?;
    Ok(said)
}

fn cleanup_of_containers_leaves_nothing_and_refills(lab: &mut Lab) -> Result<()> {
    let (id, busy) = start_held(lab, "doomed")?;
    let before = super::common::running(lab)?;
    let (refused, said) = output(lab, &["cleanup-all-containers"])?;
    ensure!(
        !refused.status.success() && said.contains("--yes"),
        "{said}"
    );
    ensure!(
        super::common::running(lab)?.get(&busy.machine()) == busy.invocation.as_ref(),
        "it went ahead"
    );
    clean(lab, &["--yes"])?;
    let job = lab.sim().await_job(id, JobState::Completed, SOON)?;
    ensure!(
        job.conclusion == Some(Conclusion::Failure),
        "GitHub was not told: {}",
        job.summary()
    );
    lab.await_settled(SOON)?;
    let now = super::common::running(lab)?;
    ensure!(
        now.values()
            .all(|life| !before.values().any(|old| old == life)),
        "a container outlived it"
    );
    let verdicts = lab.look()?.recent.into_iter().take(before.len());
    for ended in verdicts {
        ensure!(ended.verdict == Verdict::Removed, "{ended:?}");
    }
    run(lab, "true")?;
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}

fn two_cleanups_of_containers_at_once_both_tell_the_truth(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let both = "cleanup-all-containers --yes >/run/testbed/first 2>&1 & first=$!
         cleanup-all-containers --yes >/run/testbed/second 2>&1 & second=$!
         wait $first; echo $? >>/run/testbed/first
         wait $second; echo $? >>/run/testbed/second
         cat /run/testbed/first; echo ----; cat /run/testbed/second";
    let began = std::time::Instant::now();
    let said = lab.host().sh(both)?;
    let (first, second) = said.split_once("----").unwrap_or_default();
    for said in [first, second] {
        ensure_says(said, &["Nothing is left"])?;
        ensure!(said.trim().ends_with("\n0"), "{said}");
    }
    ensure!(began.elapsed() < SOON, "{:?}: {said}", began.elapsed());
    lab.await_settled(SOON)?;
    run(lab, "true").map(drop)
}

fn an_interrupted_cleanup_of_containers_is_not_healthy(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    // The clean-up waits for the sweeps, so it is interrupted in the middle.
    slow_sweeps(lab)?;
    let outcome = interrupt_cleanup(lab);
    quick_sweeps(lab)?;
    outcome?;
    lab.await_status("every runner to end", SOON, |status| {
        (status.state == DaemonState::Cleared).then_some(())
    })?;
    let health = lab.api("GET", "/health")?;
    ensure!(health.status == 503, "healthy all the same: {health:?}");
    ensure_says(&health.body, &["runner-controller undrain"])?;
    lab.host().run(&["runner-controller", "undrain"])?;
    lab.await_settled(SOON).map(drop)
}

/// Starts a clean-up, and kills it after the daemon has begun to clear the pools.
fn interrupt_cleanup(lab: &Lab) -> Result<()> {
    const UNIT: &str = "testbed-cleanup.service";
    let command = ["cleanup-all-containers", "--yes"];
    let start = ["systemd-run", "--collect", "--unit", UNIT];
    lab.host().run(&[&start[..], &command].concat())?;
    lab.await_status("the clean-up to begin", SOON, |status| {
        (status.state == DaemonState::Clearing).then_some(())
    })?;
    let health = lab.api("GET", "/health")?;
    ensure_says(&health.body, &["clean-up"])?;
    let kill = ["systemctl", "kill", "--signal=KILL", UNIT];
    lab.host().run(&kill).map(drop)
}

fn cleanup_of_containers_can_stay_down(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    clean(lab, &["--yes", "--stay-down"])?;
    lab.ensure_nothing_left()?;
    let status = lab.look()?;
    ensure!(
        status.state == DaemonState::Cleared && !status.closed.is_empty(),
        "{}",
        summary(&status)
    );
    // A restart of the daemon starts nothing either.
    lab.kill()?;
    lab.start()?;
    ensure!(
        lab.look()?.state == DaemonState::Cleared,
        "{}",
        summary(&lab.look()?)
    );
    lab.ensure_nothing_left()?;
    lab.host().run(&["runner-controller", "undrain"])?;
    lab.await_settled(SOON).map(drop)
}

fn cleanup_of_containers_works_without_a_daemon(lab: &mut Lab) -> Result<()> {
    lab.sim().set(&json!({ "lock_ms": 1500 }))?;
    let (id, _) = start_held(lab, "doomed")?;
    lab.kill()?;
    lab.stop()?;
    let (github, said) = output(lab, &["cleanup-github-runners", "--yes"])?;
    ensure!(github.status.success(), "{said}");
    clean(lab, &["--yes"])?;
    // GitHub refuses to delete a runner that has a job, and removes it when the runner stops
    // renewing the job.
    wait_until("nothing to be left", SOON, || {
        let left = lab.leftovers()?;
        let here: Vec<&String> = left
            .iter()
            .filter(|what| !what.starts_with("registration"))
            .collect();
        ensure!(here.is_empty(), "left behind: {here:?}");
        Ok(if left.is_empty() {
            Seen::Done(())
        } else {
            Seen::NotYet(left.join("; "))
        })
    })?;
    let job = lab.sim().await_job(id, JobState::Completed, SOON)?;
    ensure!(job.attempts == 1, "{}", job.summary());
    lab.sim().set(&json!({ "lock_ms": 600_000 }))?;
    lab.start()?;
    // The registrations of the killed daemon are on record until a second list, one reconcile later, lacks them too.
    lab.await_settled(2 * SOON)?;
    run(lab, "true")?;
    await_no_strangers(lab)
}
