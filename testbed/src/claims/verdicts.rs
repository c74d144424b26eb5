//! Ends of registered runners: each gets the right verdict.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use github_sim::{Conclusion, Endpoint, Fault, JobSpec, JobState, ListenerFaults};
use serde_json::json;
use status::{FailureKind, JobResult, Verdict};

use super::common::{
    SOON, await_no_strangers, await_verdict, ensure_says, idle, leader, run, start_held,
};
use super::fixture::{SMALL, SMALL_MINIMAL};
use super::suite::{Suite, suite};
use crate::lab::{DAEMON, Lab};
use crate::readings::summary;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![SMALL;
    a_crashed_listener_is_a_crash_with_its_code,
    a_container_that_dies_idle_is_deregistered,
    a_container_that_dies_with_its_job_is_a_crash,
    a_runner_deleted_in_the_browser_is_replaced,
    a_runner_that_github_no_longer_knows_is_not_a_crash,
    a_runner_that_github_refuses_says_so_in_its_own_words,
    a_registration_that_lapses_is_replaced,
    a_refused_version_is_tried_by_one_runner_at_a_time,
    a_version_near_its_end_is_told_before_github_refuses_it,
    a_job_that_exits_like_a_refused_version_is_a_crash,
    every_job_has_the_result_that_its_listener_returned,
    a_container_that_an_operator_stops_is_stopped_and_its_job_interrupted,
];

pub(super) const MINIMAL_SUITE: Suite = suite![SMALL_MINIMAL, "_in_a_minimal_image";
    a_crashed_listener_is_a_crash_with_its_code,
    a_container_that_dies_with_its_job_is_a_crash,
    a_runner_that_github_refuses_says_so_in_its_own_words,
    every_job_has_the_result_that_its_listener_returned,
    a_container_that_an_operator_stops_is_stopped_and_its_job_interrupted,
];

fn a_crashed_listener_is_a_crash_with_its_code(lab: &mut Lab) -> Result<()> {
    // GitHub abandons a job when its lock expires, which takes ten minutes there.
    lab.sim().set(&json!({ "lock_ms": 1500 }))?;
    let crash = JobSpec {
        listener_faults: ListenerFaults {
            crash_with: Some(42),
            crash_after_ms: 300,
            ..ListenerFaults::default()
        },
        ..pool_job("dies", "ci", "sleep 60")
    };
    let id = lab.sim().queue(&crash)?;
    let job = lab.sim().await_job(id, JobState::InProgress, SOON)?;
    let name = job.runner_name.context("a running job has a runner")?;
    let ended = await_verdict(lab, &name, Verdict::Crashed)?;
    ensure_says(&ended.exit.unwrap_or_default(), &["42"])?;
    let job = lab.sim().await_job(id, JobState::Completed, SOON)?;
    ensure!(
        job.conclusion == Some(Conclusion::Failure) && job.attempts == 1,
        "{}",
        job.summary()
    );
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}

fn a_container_that_dies_idle_is_deregistered(lab: &mut Lab) -> Result<()> {
    let runner = idle(&lab.await_settled(SOON)?)?;
    let name = runner.runner.clone().unwrap_or_default();
    let init = leader(lab, &runner.machine())?;
    lab.host().run(&["kill", "-KILL", &init])?;
    await_verdict(lab, &name, Verdict::Crashed)?;
    wait_until("GitHub to forget it", SOON, || {
        let registered = lab.sim().registered()?;
        Ok(if registered.contains(&name) {
            Seen::NotYet(format!("{registered:?}"))
        } else {
            Seen::Done(())
        })
    })?;
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}

fn a_container_that_dies_with_its_job_is_a_crash(lab: &mut Lab) -> Result<()> {
    lab.sim().set(&json!({ "lock_ms": 1500 }))?;
    let (id, runner) = start_held(lab, "cut")?;
    let init = leader(lab, &runner.machine())?;
    lab.host().run(&["kill", "-KILL", &init])?;
    await_verdict(lab, &runner.runner.unwrap_or_default(), Verdict::Crashed)?;
    let job = lab.sim().await_job(id, JobState::Completed, SOON)?;
    ensure!(
        job.conclusion == Some(Conclusion::Failure),
        "{}",
        job.summary()
    );
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}

fn a_runner_deleted_in_the_browser_is_replaced(lab: &mut Lab) -> Result<()> {
    let runner = idle(&lab.await_settled(SOON)?)?;
    let id = runner.runner_id.context("an idle runner has an id")?;
    lab.sim().delete_runner(id.0)?;
    await_verdict(
        lab,
        &runner.runner.unwrap_or_default(),
        Verdict::IdleExpired,
    )?;
    lab.await_settled(SOON)?;
    run(lab, "true").map(drop)
}

/// Returns an answer that refuses a call.
fn refusal(code: u16) -> Fault {
    Fault::Status {
        code,
        body: None,
        headers: BTreeMap::new(),
    }
}

fn a_runner_that_github_no_longer_knows_is_not_a_crash(lab: &mut Lab) -> Result<()> {
    lab.sim().set(&json!({ "poll_hold_ms": 100 }))?;
    // The polls of earlier runners may be held for long.
    run(lab, "true")?;
    run(lab, "true")?;
    let status = lab.await_settled(SOON)?;
    let failed_before = status.pool("ci").context("pool ci")?.failed;
    let runner = idle(&status)?;
    // GitHub's listener ends with 1 after two refused polls.
    lab.sim().fault(Endpoint::Message, Some(2), &refusal(401))?;
    let name = runner.runner.unwrap_or_default();
    let ended = await_verdict(lab, &name, Verdict::RegistrationDeleted)?;
    ensure_says(&ended.exit.unwrap_or_default(), &["status 1"])?;
    ensure!(
        ended.result.is_none(),
        "a runner without a job has a result"
    );
    let status = lab.await_settled(SOON)?;
    let pool = status.pool("ci").context("pool ci")?;
    ensure!(
        pool.failed == failed_before,
        "{} failures, and {failed_before} before: {}",
        pool.failed,
        summary(&status)
    );
    lab.sim().set(&json!({ "poll_hold_ms": 50_000 }))?;
    await_no_strangers(lab)?;
    run(lab, "true").map(drop)
}

fn a_runner_that_github_refuses_says_so_in_its_own_words(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    lab.sim().fault(Endpoint::Session, Some(1), &refusal(403))?;
    run(lab, "true")?;
    let refused = lab.await_status("a refused session", SOON, |status| {
        let mut recent = status.recent.iter();
        recent
            .find(|ended| ended.verdict == Verdict::RegistrationRefused)
            .cloned()
    })?;
    ensure_says(
        refused.last_line.as_deref().unwrap_or_default(),
        &["Failed to create session"],
    )?;
    // The host may be about to try again, which is a problem until then.
    let text = lab.host().sh("runner-status || [ $? = 1 ]")?;
    ensure_says(
        &text,
        &[
            "registration_refused",
            "it wrote \"Failed to create session",
        ],
    )?;
    let journal = lab.journalctl(&["-u", "runner-controller", "-o", "cat", "-n", "200"])?;
    ensure_says(&journal, &["it wrote \"Failed to create session"])?;
    lab.api("POST", "/undrain")?;
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}

fn every_job_has_the_result_that_its_listener_returned(lab: &mut Lab) -> Result<()> {
    for (script, result) in [("true", JobResult::Succeeded), ("false", JobResult::Failed)] {
        let id = lab.sim().queue(&pool_job("job", "ci", script))?;
        let job = lab.sim().await_job(id, JobState::Completed, SOON)?;
        let name = job.runner_name.context("a job has a runner")?;
        let ended = await_verdict(lab, &name, Verdict::JobDone)?;
        ensure!(ended.result == Some(result), "{script}: {ended:?}");
    }
    let (id, runner) = start_held(lab, "cancelled")?;
    lab.sim().cancel(id)?;
    let name = runner.runner.unwrap_or_default();
    let ended = await_verdict(lab, &name, Verdict::JobDone)?;
    ensure!(ended.result == Some(JobResult::Cancelled), "{ended:?}");
    let metrics = lab.api("GET", "/metrics")?.body;
    for result in ["succeeded", "failed", "cancelled"] {
        let series =
            format!("runner_controller_job_results_total{{pool=\"ci\",result=\"{result}\"}}");
        let line = metrics.lines().find(|line| line.starts_with(&series));
        let line = line.with_context(|| format!("{series} is missing"))?;
        ensure!(!line.ends_with(" 0"), "{line}");
    }
    lab.await_settled(SOON).map(drop)
}

fn a_container_that_an_operator_stops_is_stopped_and_its_job_interrupted(
    lab: &mut Lab,
) -> Result<()> {
    let runner = idle(&lab.await_settled(SOON)?)?;
    lab.host().run(&["systemctl", "stop", &runner.unit])?;
    await_verdict(lab, &runner.runner.unwrap_or_default(), Verdict::Stopped)?;
    lab.await_settled(SOON)?;
    let (id, runner) = start_held(lab, "terminated")?;
    lab.host().run(&["systemctl", "stop", &runner.unit])?;
    let name = runner.runner.unwrap_or_default();
    let ended = await_verdict(lab, &name, Verdict::Stopped)?;
    ensure!(ended.result == Some(JobResult::Interrupted), "{ended:?}");
    lab.sim().await_job(id, JobState::Completed, SOON)?;
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}

fn a_registration_that_lapses_is_replaced(lab: &mut Lab) -> Result<()> {
    let runner = idle(&lab.await_settled(SOON)?)?;
    // Longer than the interval of lists, so each registration is listed before it lapses.
    lab.sim().set(&json!({ "idle_reap_ms": 3000 }))?;
    await_verdict(
        lab,
        &runner.runner.unwrap_or_default(),
        Verdict::IdleExpired,
    )?;
    // One replacement, and then a backoff.
    let backoff = lab.await_status("a pause after lapsed registrations", SOON, |status| {
        status
            .backoff(FailureKind::Expired)
            .filter(|backoff| backoff.failures >= 2)
            .cloned()
    })?;
    ensure_says(&backoff.reason, &["idle_expired"])?;
    lab.sim().set(&json!({ "idle_reap_ms": null }))?;
    lab.api("POST", "/undrain")?;
    lab.await_settled(SOON)?;
    run(lab, "true").map(drop)
}

fn a_refused_version_is_tried_by_one_runner_at_a_time(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    lab.sim().set(&json!({ "minimum_version": "9.0.0" }))?;
    let refused = lab.await_status("a runner whose version is refused", SOON, |status| {
        status
            .recent
            .iter()
            .find(|ended| ended.verdict == Verdict::VersionRefused)
            .cloned()
    })?;
    ensure_says(&refused.exit.unwrap_or_default(), &["status 7"])?;
    let waiting = lab.await_status("a third refused runner", SOON, |status| {
        status
            .backoff(FailureKind::Version)
            .filter(|backoff| backoff.failures >= 3)
            .cloned()
    })?;
    ensure_says(&waiting.reason, &["newer", "image"])?;
    lab.sim().set(&json!({ "minimum_version": null }))?;
    // The pool opens again by itself, and the first job shows that GitHub accepts the version.
    lab.await_settled(SOON)?;
    run(lab, "true")?;
    lab.await_status("registrations without a delay", SOON, |status| {
        status.backoff(FailureKind::Version).is_none().then_some(())
    })
}

fn a_version_near_its_end_is_told_before_github_refuses_it(lab: &mut Lab) -> Result<()> {
    let host = lab.host();
    // The stand-in for GitHub's listener has the version of a real one.
    let set_end = |when: &str| {
        let date = host.run(&["date", "--utc", "--date", when, "+%FT%TZ"])?;
        let end = json!({ "runtime_deprecates_at": date.trim() });
        lab.sim()
            .set(&json!({ "runner_versions": { "2.336.0": end } }))?;
        // Otherwise the daemon asks again after a day.
        host.run(&["systemctl", "restart", DAEMON])
    };
    let await_text = |text: &str| {
        wait_until(&format!("{text:?} in the status"), SOON, || {
            let output = host.output(&["runner-status"])?;
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(if shown.contains(text) {
                Seen::Done((shown, output.status.code()))
            } else {
                Seen::NotYet(shown)
            })
        })
    };
    lab.await_settled(SOON)?;
    set_end("5 days 1 hour")?;
    let (near, _) = await_text("pool ci: GitHub refuses runner 2.336.0 in 5 d")?;
    ensure_says(&near, &["build the image again with a newer runner"])?;
    lab.await_settled(SOON)?;
    run(lab, "true")?;
    let ended = lab.look()?.recent.first().cloned();
    let version = ended.and_then(|ended| ended.version);
    ensure!(version.is_some(), "the record of a runner has no version");
    set_end("1 hour ago")?;
    lab.sim().set(&json!({ "minimum_version": "9.0.0" }))?;
    let (_, code) = await_text("pool ci: GitHub refuses runner 2.336.0 since")?;
    ensure!(code == Some(1), "runner-status ended with {code:?}");
    lab.await_status("a runner whose version is refused", SOON, |status| {
        let ended = &mut status.recent.iter();
        ended.find(|ended| ended.verdict == Verdict::VersionRefused)?;
        Some(())
    })?;
    lab.sim()
        .set(&json!({ "minimum_version": null, "runner_versions": {} }))?;
    host.run(&["systemctl", "restart", DAEMON])?;
    lab.await_settled(SOON).map(drop)
}

fn a_job_that_exits_like_a_refused_version_is_a_crash(lab: &mut Lab) -> Result<()> {
    lab.sim().set(&json!({ "lock_ms": 1500 }))?;
    let exits = JobSpec {
        listener_faults: ListenerFaults {
            crash_with: Some(7),
            crash_after_ms: 300,
            ..ListenerFaults::default()
        },
        ..pool_job("lies", "ci", "sleep 60")
    };
    let id = lab.sim().queue(&exits)?;
    let job = lab.sim().await_job(id, JobState::InProgress, SOON)?;
    let name = job.runner_name.context("a running job has a runner")?;
    let ended = await_verdict(lab, &name, Verdict::Crashed)?;
    ensure_says(&ended.exit.unwrap_or_default(), &["status 7"])?;
    let status = lab.await_settled(SOON)?;
    ensure!(
        status.backoff(FailureKind::Version).is_none(),
        "the pool waits: {}",
        summary(&status)
    );
    await_no_strangers(lab)
}
