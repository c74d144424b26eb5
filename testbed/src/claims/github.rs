//! GitHub refuses, limits, fails and sends wrong lists. No job is lost, and the status says
//! what to do.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use github_sim::{APP_KEY, Endpoint, Fault, JobState};
use serde_json::{Value, json};
use status::{DaemonState, FailureKind, PhaseKind, RunnerStatus};

use super::common::{
    SOON, await_calls, await_no_strangers, daemon_pid, ensure_says, finish_held, idle, run, spare,
    start_held,
};
use super::fixture::{SMALL, small};
use super::suite::{Suite, suite};
use crate::lab::{APP_ID, DAEMON, Lab, TOKEN};
use crate::readings::summary;
use crate::sim::pool_job;

pub(super) const SUITE: Suite = suite![SMALL;
    a_missing_permission_is_named_and_spares_wait,
    an_unprocessable_mint_is_named_and_spares_wait,
    a_taken_name_is_never_sent_again,
    a_bad_token_is_named_and_a_good_one_works_at_once,
    an_app_takes_the_tokens_place_while_a_job_runs,
    nothing_is_sent_while_the_primary_limit_holds,
    nothing_is_sent_while_a_secondary_limit_holds,
    an_outage_is_waited_out,
    a_lie_about_the_list_destroys_nothing,
    a_lost_answer_to_a_mint_is_another_name,
    a_runner_that_just_got_a_job_survives_a_drain,
];

/// Lets the idle runner take a job while GitHub refuses to register the spare. The spare must
/// wait, and must take the next job once GitHub registers it.
fn while_mints_fail(
    lab: &Lab,
    mint_fault: &Fault,
    times: Option<u64>,
    meanwhile: impl FnOnce(&Lab, &RunnerStatus) -> Result<()>,
) -> Result<()> {
    let waiting = spare(&lab.await_settled(SOON)?)?;
    lab.sim().forget_calls()?;
    lab.sim().fault(Endpoint::Mint, times, mint_fault)?;
    let (id, busy) = start_held(lab, "meanwhile")?;
    await_calls(lab, Endpoint::Mint, 1)?;
    meanwhile(lab, &waiting)?;
    // The busy runner is not disturbed.
    finish_held(lab, id, &busy)?;
    let status = lab.look()?;
    let same = status
        .runners()
        .any(|runner| runner.invocation == waiting.invocation && runner.phase == PhaseKind::Spare);
    ensure!(
        same || times.is_some(),
        "the spare did not wait: {}",
        summary(&status)
    );
    lab.sim().clear_faults()?;
    lab.api("POST", "/undrain")?;
    let status = lab.await_settled(SOON)?;
    let promoted = status
        .runners()
        .any(|runner| runner.invocation == waiting.invocation && runner.phase == PhaseKind::Idle);
    ensure!(
        promoted,
        "the spare that waited was not used: {}",
        summary(&status)
    );
    await_no_strangers(lab)?;
    run(lab, "true").map(drop)
}

/// Waits until the status shows a GitHub error with these words and a backoff of mints.
fn await_error(lab: &Lab, failure: FailureKind, words: &[&str]) -> Result<()> {
    let (error, backoff) = lab.await_status("an error of GitHub's", SOON, |status| {
        let error = status.github.error.clone()?;
        Some((error, status.backoff(failure)?.clone()))
    })?;
    ensure_says(&error, words)?;
    ensure_says(&backoff.reason, words)?;
    let health = lab.api("GET", "/health")?;
    ensure!(health.status == 503, "healthy all the same: {health:?}");
    ensure_says(&health.body, &words[..1])
}

fn a_missing_permission_is_named_and_spares_wait(lab: &mut Lab) -> Result<()> {
    let message = "Resource not accessible by personal access token";
    let fault = Fault::Forbidden {
        message: message.into(),
    };
    while_mints_fail(lab, &fault, None, |lab, _| {
        await_error(
            lab,
            FailureKind::Forbidden,
            &[message, "dministration", "GitHub request"],
        )
    })
}

fn an_unprocessable_mint_is_named_and_spares_wait(lab: &mut Lab) -> Result<()> {
    let fault = Fault::answer(422, json!({ "message": "Validation Failed: labels" }));
    while_mints_fail(lab, &fault, None, |lab, _| {
        await_error(
            lab,
            FailureKind::Invalid,
            &["Validation Failed", "GitHub request"],
        )
    })
}

fn a_taken_name_is_never_sent_again(lab: &mut Lab) -> Result<()> {
    let since = lab.host().run(&["date", "+%s"])?;
    let fault = Fault::answer(409, json!({ "message": "Already exists" }));
    while_mints_fail(lab, &fault, Some(2), |lab, _| {
        await_calls(lab, Endpoint::Mint, 3)
    })?;
    let mints = lab.sim().stats()?.calls_of("mint");
    let text = lab.journalctl(&[
        "--unit",
        DAEMON,
        "--since",
        &format!("@{}", since.trim()),
        "--output=json",
        "--output-fields=RUNNER,MESSAGE",
    ])?;
    let names: Vec<String> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|entry| {
            entry["MESSAGE"]
                .as_str()
                .is_some_and(|text| text.contains("registering a spare"))
        })
        .filter_map(|entry| entry["RUNNER"].as_str().map(str::to_owned))
        .collect();
    let distinct: BTreeSet<&String> = names.iter().collect();
    ensure!(
        u64::try_from(names.len())? == mints && distinct.len() == names.len(),
        "{mints} mints with the names {names:?}"
    );
    Ok(())
}

fn a_bad_token_is_named_and_a_good_one_works_at_once(lab: &mut Lab) -> Result<()> {
    let settled = lab.await_settled(SOON)?;
    let (idle, spare) = (idle(&settled)?, spare(&settled)?);
    let pid = daemon_pid(lab)?;
    let next = "github_pat_testbed_next_6f0d2b9c1e7a4d53";
    lab.sim().rotate_token(next)?;
    let (id, busy) = start_held(lab, "meanwhile")?;
    ensure!(busy.invocation == idle.invocation, "{busy:?} is busy");
    await_error(
        lab,
        FailureKind::Unauthorized,
        &["Bad credentials", "token"],
    )?;
    let status = lab.look()?;
    ensure!(
        daemon_pid(lab)? == pid,
        "the daemon did not stay up: {}",
        summary(&status)
    );
    ensure!(
        status
            .machine(&spare.machine())
            .is_some_and(|now| now.phase == PhaseKind::Spare && now.invocation == spare.invocation),
        "the spare did not wait: {}",
        summary(&status)
    );
    lab.write_token(next)?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    lab.await_status("the spare to be registered", SOON, |status| {
        status
            .machine(&spare.machine())
            .filter(|now| now.runner.is_some() && now.invocation == spare.invocation)
            .map(|_| ())
    })?;
    finish_held(lab, id, &busy)?;
    run(lab, "true")?;
    lab.await_settled(SOON)?;
    lab.write_token(TOKEN)?;
    lab.sim().rotate_token(TOKEN)?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    lab.await_settled(SOON).map(drop)
}

fn an_app_takes_the_tokens_place_while_a_job_runs(lab: &mut Lab) -> Result<()> {
    const KEY: &str = "/etc/runner-controller/app.pem";
    let (id, busy) = start_held(lab, "before the App")?;
    lab.host().write(KEY, APP_KEY.as_bytes(), 0o600)?;
    let mut config = small(lab.sim().api_url());
    config.login = format!("app = {{ id = {APP_ID}, key_file = {KEY:?} }}");
    lab.install(&config)?;
    // The App can do what the token could.
    lab.sim().rotate_token("ghp_of_nobody_any_more")?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    finish_held(lab, id, &busy)?;
    run(lab, "true")?;
    lab.await_settled(SOON)?;
    let stats = lab.sim().stats()?;
    let (asked, minted) = (stats.calls_of("access_token"), stats.calls_of("mint"));
    ensure!(
        asked == 1 && minted > 1,
        "{asked} tokens for {minted} mints"
    );

    lab.sim().rotate_token(TOKEN)?;
    lab.install(&small(lab.sim().api_url()))?;
    lab.host().run(&["rm", KEY])?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    lab.await_settled(SOON).map(drop)
}

/// Checks that a limit lasts as long as GitHub says, ends by itself, and holds for a daemon
/// that starts meanwhile.
fn while_limited(lab: &Lab, fault: &Fault) -> Result<()> {
    let waiting = spare(&lab.await_settled(SOON)?)?;
    lab.sim().forget_calls()?;
    lab.sim().fault(Endpoint::Mint, Some(1), fault)?;
    let (id, busy) = start_held(lab, "meanwhile")?;
    let limited = lab.await_status("a mint that waits for the limit's end", SOON, |status| {
        status.backoff(FailureKind::Limited).cloned()
    })?;
    ensure!(
        limited.retry_in_ms > 1000,
        "again in {} ms",
        limited.retry_in_ms
    );
    ensure_says(&limited.reason, &["limit"])?;
    lab.kill()?;
    lab.start()?;
    lab.await_status("the spare to be registered", SOON, |status| {
        status
            .machine(&waiting.machine())
            .filter(|now| now.runner_id.is_some() && now.invocation == waiting.invocation)
            .map(|_| ())
    })?;
    let stats = lab.sim().stats()?;
    ensure!(
        stats.while_limited == 0,
        "{} calls while a limit held: {:?}",
        stats.while_limited,
        stats.calls
    );
    finish_held(lab, id, &busy)?;
    run(lab, "true").map(drop)
}

fn nothing_is_sent_while_the_primary_limit_holds(lab: &mut Lab) -> Result<()> {
    while_limited(lab, &Fault::PrimaryLimit { reset_in_s: 8 })
}

fn nothing_is_sent_while_a_secondary_limit_holds(lab: &mut Lab) -> Result<()> {
    while_limited(
        lab,
        &Fault::SecondaryLimit {
            retry_after_s: Some(8),
        },
    )
}

fn an_outage_is_waited_out(lab: &mut Lab) -> Result<()> {
    let settled = lab.await_settled(SOON)?;
    let sim = lab.sim();
    sim.forget_calls()?;
    let unavailable = Fault::status(503);
    sim.fault(Endpoint::List, None, &unavailable)?;
    sim.fault(Endpoint::Mint, Some(1), &unavailable)?;
    sim.fault(Endpoint::Mint, Some(1), &Fault::Html502)?;
    sim.fault(Endpoint::Mint, Some(1), &Fault::DropBefore)?;
    let (id, busy) = start_held(lab, "meanwhile")?;
    await_calls(lab, Endpoint::Mint, 3)?;
    await_calls(lab, Endpoint::List, 2)?;
    let status = lab.look()?;
    for runner in settled.runners() {
        ensure!(
            status
                .machine(&runner.machine())
                .is_some_and(|now| now.invocation == runner.invocation),
            "{} did not outlive the outage: {}",
            runner.machine(),
            summary(&status)
        );
    }
    // The fourth mint works without an operator.
    lab.await_status("a runner that was registered after all", SOON, |status| {
        status.in_phase(PhaseKind::Registering).first().map(|_| ())
    })?;
    sim.clear_faults()?;
    finish_held(lab, id, &busy)?;
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}

fn a_lie_about_the_list_destroys_nothing(lab: &mut Lab) -> Result<()> {
    let settled = lab.await_settled(SOON)?;
    let sim = lab.sim();
    sim.forget_calls()?;
    sim.fault(Endpoint::List, Some(1), &Fault::Truncate { bytes: 20 })?;
    sim.fault(Endpoint::List, Some(1), &Fault::WrongTypes)?;
    sim.fault(
        Endpoint::List,
        Some(2),
        &Fault::answer(200, json!({ "total_count": 0, "runners": [] })),
    )?;
    await_calls(lab, Endpoint::List, 5)?;
    let status = lab.await_settled(SOON)?;
    for runner in settled.runners() {
        ensure!(
            status
                .machine(&runner.machine())
                .is_some_and(|now| now.invocation == runner.invocation),
            "{} is gone: {}",
            runner.machine(),
            summary(&status)
        );
    }
    run(lab, "true").map(drop)
}

fn a_lost_answer_to_a_mint_is_another_name(lab: &mut Lab) -> Result<()> {
    let waiting = spare(&lab.await_settled(SOON)?)?;
    lab.sim().forget_calls()?;
    lab.sim()
        .fault(Endpoint::Mint, Some(1), &Fault::DropAfter)?;
    let (id, busy) = start_held(lab, "meanwhile")?;
    let now = lab.await_status("the spare to be registered", SOON, |status| {
        status
            .machine(&waiting.machine())
            .filter(|now| now.runner_id.is_some() && now.invocation == waiting.invocation)
            .cloned()
    })?;
    finish_held(lab, id, &busy)?;
    // The orphaned registration is shown under its name. Its deletion is the claim
    // `a_registration_without_a_container_is_deleted`.
    let ours = now.runner.context("it is registered")?;
    let lost: Vec<String> = lab
        .sim()
        .registered()?
        .into_iter()
        .filter(|name| {
            name.starts_with(&format!("testhost-{}-", waiting.machine())) && *name != ours
        })
        .collect();
    ensure!(lost.len() == 1, "lost: {lost:?}, and {ours} is ours");
    lab.await_status("the lost registration to be a stray", SOON, |status| {
        (status.strays == lost).then_some(())
    })?;
    run(lab, "true")?;
    let ids: Vec<u64> = lab
        .sim()
        .runners()?
        .into_iter()
        .filter(|runner| lost.contains(&runner.name))
        .map(|runner| runner.id)
        .collect();
    ids.into_iter()
        .try_for_each(|id| lab.sim().delete_runner(id))
}

fn a_runner_that_just_got_a_job_survives_a_drain(lab: &mut Lab) -> Result<()> {
    let idle = idle(&lab.await_settled(SOON)?)?;
    // It has its job, and nothing on this host shows it yet, because the listener is still
    // asking for it.
    lab.sim()
        .fault(Endpoint::Acquire, Some(1), &Fault::Delay { ms: 1500 })?;
    let id = lab.sim().queue(&pool_job("raced", "ci", "true"))?;
    lab.sim().await_job(id, JobState::Assigned, SOON)?;
    lab.sim().forget_calls()?;
    lab.api("POST", "/drain")?;
    await_calls(lab, Endpoint::Delete, 1)?;
    let job = lab.sim().await_success(id, SOON)?;
    ensure!(
        job.attempts == 1 && job.runner_name == idle.runner,
        "{}; it was {}'s",
        job.summary(),
        idle.runner.unwrap_or_default()
    );
    let stats = lab.sim().stats()?;
    let refused = stats
        .calls
        .get("delete")
        .and_then(|statuses| statuses.get("422"));
    ensure!(refused.is_some(), "GitHub was not asked: {:?}", stats.calls);
    lab.await_status("the drain's end", SOON, |status| {
        (status.state == DaemonState::Drained).then_some(())
    })?;
    lab.await_nothing_left(SOON)?;
    lab.api("POST", "/undrain")?;
    lab.await_settled(SOON).map(drop)
}
