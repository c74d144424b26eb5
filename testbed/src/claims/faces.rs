//! The daemon as operators, monitoring and systemd see it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use github_sim::{Endpoint, Fault, JobState};
use serde_json::Value;
use status::{DaemonState, PhaseKind, Verdict};

use super::common::{
    SOON, await_no_strangers, daemon_pid, ensure_says, finish_held, idle, in_container, run,
    running, start_held,
};
use super::fixture::SMALL;
use super::suite::{Suite, suite};
use crate::lab::{CONFIG, DAEMON, Lab};
use crate::readings::summary;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![SMALL;
    check_config_prints_every_mistake_at_once,
    a_drain_waits_for_jobs_and_leaves_nothing,
    a_drain_outlives_the_daemon,
    health_gives_the_reason_why_jobs_would_wait,
    metrics_have_bounded_labels,
    the_journal_has_fields,
    the_daemon_is_ready_only_when_it_answers,
    a_stuck_daemon_is_restarted,
    a_new_configuration_rolls_idle_runners_and_no_job,
    a_bad_configuration_changes_nothing,
];

const CONTROLLER: &str = "runner-controller";

fn check_config_prints_every_mistake_at_once(lab: &mut Lab) -> Result<()> {
    let bad = "host = \"no spaces here\"\nsurprise = 1\n\
               [github]\nurl = \"https://github.com/a/b/c\"\ntoken_file = \"/nix/store/token\"\n\
               [network]\nblock = \"8.8.0.0/16\"\nresolvers = [\"127.0.0.1\"]\n\
               [pools.c-i]\nlabels = []\nmax_runners = 0\nlayer = { kind = \"floppy\", size = \"1\" }\n";
    let host = lab.host();
    host.write("/run/testbed/bad.toml", bad.as_bytes(), 0o644)?;
    let output = host.output(&[
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        CONTROLLER,
        "check-config",
        "/run/testbed/bad.toml",
    ])?;
    ensure!(!output.status.success(), "it was accepted");
    let said = String::from_utf8_lossy(&output.stderr);
    for key in [
        "host",
        "surprise",
        "github.url",
        "github.token_file",
        "network.block",
        "network.resolvers",
        "pools.c-i",
        "labels",
        "max_runners",
        "image",
        "layer",
    ] {
        let line = said
            .lines()
            .find(|line| line.starts_with("  ") && line.contains(key));
        ensure!(line.is_some(), "{key} is not reported: {said}");
    }
    let mistakes = said.matches("\n    wrong: ").count();
    ensure!(
        mistakes >= 11 && said.matches("\n    write: ").count() == mistakes,
        "{said}"
    );
    ensure_says(&said, &["/run/testbed/bad.toml"])?;
    let good = host.run(&[CONTROLLER, "check-config", "--host", CONFIG])?;
    ensure_says(&good, &["good", "testhost", "ci"])
}

fn a_drain_waits_for_jobs_and_leaves_nothing(lab: &mut Lab) -> Result<()> {
    let (id, busy) = start_held(lab, "long")?;
    let host = lab.host();
    let output = host.output(&[CONTROLLER, "drain", "--wait", "--timeout", "1s"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3), "{}: {said}", output.status);
    ensure_says(&said, &[&busy.machine(), "acme/widgets"])?;
    // Runners without a job have ended, or will soon.
    lab.await_active(1, SOON)?;
    let status = lab.look()?;
    ensure!(
        status.state == DaemonState::Draining && !status.closed.is_empty(),
        "{}",
        summary(&status)
    );
    finish_held(lab, id, &busy)?;
    host.run(&[CONTROLLER, "drain", "--wait", "--timeout", "30s"])?;
    ensure!(
        lab.look()?.state == DaemonState::Drained,
        "{}",
        summary(&lab.look()?)
    );
    lab.ensure_nothing_left()?;
    // A job that is queued now waits.
    let waiting = lab.sim().queue(&pool_job("waits", "ci", "true"))?;
    ensure!(
        lab.sim().job(waiting)?.status == JobState::Queued,
        "it does not wait"
    );
    host.run(&[CONTROLLER, "undrain"])?;
    lab.sim().await_success(waiting, SOON)?;
    lab.await_settled(SOON).map(drop)
}

fn a_drain_outlives_the_daemon(lab: &mut Lab) -> Result<()> {
    lab.host()
        .run(&[CONTROLLER, "drain", "--wait", "--timeout", "30s"])?;
    lab.kill()?;
    lab.start()?;
    let status = lab.look()?;
    ensure!(status.state == DaemonState::Drained, "{}", summary(&status));
    lab.ensure_nothing_left()?;
    lab.host().run(&[CONTROLLER, "undrain"])?;
    lab.await_settled(SOON).map(drop)
}

fn health_gives_the_reason_why_jobs_would_wait(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let health = lab.api("GET", "/health")?;
    ensure!(health.status == 200, "{health:?}");
    // A job queued now would wait: GitHub registers no runner, and the last one is busy.
    lab.sim().fault(Endpoint::Mint, None, &Fault::status(503))?;
    let (id, busy) = start_held(lab, "last")?;
    let reason = wait_until("a reason to be unwell", SOON, || {
        let health = lab.api("GET", "/health")?;
        let body: Value = serde_json::from_str(&health.body)?;
        let reasons = body["reasons"].to_string();
        Ok(if health.status == 503 && reasons.contains("pool ci") {
            Seen::Done(reasons)
        } else {
            Seen::NotYet(format!("{} {}", health.status, health.body))
        })
    })?;
    ensure_says(&reason, &["no runner ready for a job", "503"])?;
    lab.sim().clear_faults()?;
    lab.api("POST", "/undrain")?;
    lab.await_status("a runner to be had", SOON, |status| {
        status.in_phase(PhaseKind::Idle).first().map(|_| ())
    })?;
    let health = lab.api("GET", "/health")?;
    ensure!(health.status == 200, "{health:?}");
    finish_held(lab, id, &busy)?;
    // Other paths are refused, and a GET changes nothing.
    let statuses = [
        ("GET", "/drain"),
        ("POST", "/status"),
        ("GET", "/nothing"),
        ("DELETE", "/health"),
    ]
    .map(|(method, path)| lab.api(method, path).map(|answer| answer.status));
    for status in statuses {
        ensure!(
            matches!(status?, 404 | 405),
            "an API that is not there answers"
        );
    }
    Ok(())
}

/// Returns the series of `/metrics` without their values.
fn series(lab: &Lab) -> Result<BTreeSet<String>> {
    let answer = lab.api("GET", "/metrics")?;
    ensure!(
        answer.status == 200 && answer.body.ends_with("# EOF\n"),
        "{answer:?}"
    );
    Ok(answer
        .body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series.to_owned())
        .collect())
}

fn metrics_have_bounded_labels(lab: &mut Lab) -> Result<()> {
    run(lab, "true")?;
    lab.await_settled(SOON)?;
    let before = series(lab)?;
    ensure!(
        before
            .iter()
            .any(|line| line.contains(r#"reason="job_done""#)),
        "{before:?}"
    );
    // Jobs with different names. One of them writes what the hook would not write.
    let jobs = ["one", "two", "thr\"ee\n", "four"].map(|name| {
        pool_job(
            name,
            "ci",
            "printf 'v1\\tevil\\t1\\tx\\ty\\n' >/run/runner/started || true",
        )
    });
    super::common::run_jobs(lab, &jobs)?;
    lab.await_settled(SOON)?;
    let after = series(lab)?;
    let more: Vec<&String> = after.difference(&before).collect();
    ensure!(more.is_empty(), "four jobs added {more:?}");
    // Five histograms of the pool have some 15 series each, and that of each operation at GitHub 12.
    ensure!(after.len() < 280, "{} series for one pool", after.len());
    // Peaks of memory need a controller, which a test host may lack.
    let text = lab.api("GET", "/metrics")?.body;
    for measure in [
        "boot_seconds",
        "registration_seconds",
        "job_seconds",
        "job_cpu_seconds",
    ] {
        let name = format!("runner_controller_{measure}_count{{pool=\"ci\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&name));
        let count: u64 = count.context(measure)?.parse()?;
        ensure!(count >= 5, "{measure}: {count} of 5 jobs");
    }
    Ok(())
}

fn the_journal_has_fields(lab: &mut Lab) -> Result<()> {
    let id = lab.sim().queue(&pool_job("logged", "ci", "true"))?;
    let job = lab.sim().await_success(id, SOON)?;
    let name = job.runner_name.context("it had a runner")?;
    super::common::await_verdict(lab, &name, Verdict::JobDone)?;
    let text = lab.journalctl(&["--unit", DAEMON, "--output=json", &format!("RUNNER={name}")])?;
    let entries: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let slot = super::common::machine_of(&name);
    ensure!(
        entries.len() >= 2
            && entries
                .iter()
                .all(|entry| entry["POOL"] == "ci" && entry["SLOT"] == slot),
        "{text}"
    );
    let end = entries
        .iter()
        .find(|entry| entry["VERDICT"] == "job_done")
        .context("its verdict is not in the journal")?;
    let url = end["JOB_URL"].as_str().unwrap_or_default();
    ensure!(
        url.ends_with(&format!("/acme/widgets/actions/runs/{id}")),
        "JOB_URL={url}"
    );
    // The trace id joins these entries to those of the runner's unit.
    let trace = end["TRACE_ID"].as_str().unwrap_or_default();
    let traces = entries
        .iter()
        .filter_map(|entry| entry["TRACE_ID"].as_str());
    ensure!(
        trace.len() == 32 && traces.collect::<BTreeSet<_>>().len() == 1,
        "{text}"
    );
    let of_unit = format!("_SYSTEMD_INVOCATION_ID={trace}");
    let of_unit = lab.journalctl(&["--output=cat", &of_unit])?;
    ensure_says(&of_unit, &["Running job: logged"])?;
    // The runner's output stays after its container has ended.
    let unit = format!("runner-{}.service", slot.replace('-', "@"));
    ensure_says(&lab.journal(&unit, 50), &["Running job: logged"])?;
    // The output of a running container is shown as it is written.
    let idle = idle(&lab.await_settled(SOON)?)?;
    let live = in_container(
        lab,
        &idle.machine(),
        &["journalctl", "--unit", "github-runner", "--output=cat"],
    )?;
    ensure_says(&live, &["Listening for Jobs"])
}

fn the_daemon_is_ready_only_when_it_answers(lab: &mut Lab) -> Result<()> {
    for (property, value) in [
        ("Type", "notify-reload"),
        ("WatchdogUSec", "30s"),
        ("ActiveState", "active"),
    ] {
        let found = lab.show(DAEMON, property)?;
        ensure!(found == value, "{property} is {found}");
    }
    let before = running(lab)?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    // The daemon notifies systemd only after it has adopted all runners, so this needs no wait.
    let status = lab.look()?;
    for (machine, invocation) in before {
        ensure!(
            status
                .machine(&machine)
                .is_some_and(|runner| runner.invocation == Some(invocation)),
            "{machine} is not known: {}",
            summary(&status)
        );
    }
    let kept: usize = lab.show(DAEMON, "NFileDescriptorStore")?.parse()?;
    let most: usize = lab.show(DAEMON, "FileDescriptorStoreMax")?.parse()?;
    ensure!(
        kept > 0 && most >= 4 * 4,
        "{kept} of {most} descriptors are kept"
    );
    Ok(())
}

/// Drop-in with a shorter watchdog than the unit's half a minute.
const LEASH: &str = "/run/systemd/system/runner-controller.service.d/50-leash.conf";

fn a_stuck_daemon_is_restarted(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let host = lab.host();
    host.write(
        LEASH,
        b"[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n",
        0o644,
    )?;
    host.run(&["systemctl", "daemon-reload"])?;
    host.run(&["systemctl", "restart", DAEMON])?;
    let before = running(lab)?;
    let pid = daemon_pid(lab)?;
    host.run(&["kill", "-STOP", &pid])?;
    let restarted = wait_until("another daemon", SOON, || {
        let now = daemon_pid(lab)?;
        Ok(
            if now != pid && now != "0" && lab.show(DAEMON, "ActiveState")? == "active" {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("process {now}"))
            },
        )
    });
    host.run(&["rm", LEASH])?;
    host.run(&["systemctl", "daemon-reload"])?;
    restarted?;
    host.run(&["systemctl", "restart", DAEMON])?;
    ensure!(running(lab)? == before, "containers were lost with it");
    lab.await_settled(SOON)?;
    run(lab, "true")?;
    await_no_strangers(lab)
}

fn a_new_configuration_rolls_idle_runners_and_no_job(lab: &mut Lab) -> Result<()> {
    let (id, busy) = start_held(lab, "long")?;
    lab.await_status("a spare and an idle runner beside it", SOON, |status| {
        (status.in_phase(PhaseKind::Idle).len() == 1
            && status.in_phase(PhaseKind::Spare).len() == 1)
            .then_some(())
    })?;
    let before = running(lab)?;
    let config = super::fixture::small(lab.sim().api_url());
    lab.install(
        &config
            .clone()
            .with("ci", |pool| pool.memory = "768 MiB".into()),
    )?;
    lab.reload()?;
    lab.await_status("the others to be replaced", SOON, |status| {
        let replaced = [PhaseKind::Idle, PhaseKind::Spare]
            .into_iter()
            .all(|phase| {
                status.in_phase(phase).first().is_some_and(|runner| {
                    before.get(&runner.machine()) != runner.invocation.as_ref()
                })
            });
        replaced.then_some(())
    })?;
    let now = running(lab)?;
    ensure!(
        now.get(&busy.machine()) == busy.invocation.as_ref(),
        "the job's container was replaced"
    );
    let fresh = now
        .keys()
        .find(|machine| **machine != busy.machine())
        .context("nothing lives")?;
    let limit = lab.show(
        &format!("runner-{}.service", fresh.replace('-', "@")),
        "MemoryMax",
    )?;
    ensure!(
        limit == (768_u64 << 20).to_string(),
        "MemoryMax of {fresh} is {limit}"
    );
    finish_held(lab, id, &busy)?;
    lab.await_status("the verdicts of all three", SOON, |status| {
        let recent = status.recent.iter().take(3);
        let verdicts: BTreeSet<Verdict> = recent.map(|ended| ended.verdict).collect();
        (verdicts == BTreeSet::from([Verdict::JobDone, Verdict::Rolled])).then_some(())
    })?;
    lab.install(&config)?;
    lab.reload()?;
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}

fn a_bad_configuration_changes_nothing(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let (before, pid) = (running(lab)?, daemon_pid(lab)?);
    let good = std::fs::read(lab.host().path(CONFIG))?;
    lab.host().write(CONFIG, b"host = 7\n", 0o644)?;
    lab.host().run(&["systemctl", "reload", DAEMON])?;
    let refused = wait_until("the mistake to be reported", SOON, || {
        let log = lab.journal(DAEMON, 40);
        Ok(if log.contains("keeping the old one") {
            Seen::Done(())
        } else {
            Seen::NotYet(log)
        })
    });
    lab.host().write(CONFIG, &good, 0o644)?;
    refused?;
    ensure!(
        daemon_pid(lab)? == pid && running(lab)? == before,
        "something changed"
    );
    run(lab, "true").map(drop)
}
