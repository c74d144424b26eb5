//! Tables of the kernel that all containers share: a job that takes all that it gets disturbs neither the
//! host nor another pool.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use status::PhaseKind;

use super::common::{SOON, await_busy, in_container, leader};
use super::fixture::{Fixture, await_settled, one};
use super::suite::{Suite, suite};
use crate::bed;
use crate::config::Config;
use crate::lab::Lab;
use crate::net::GITHUB;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

/// Two pools with one slot each.
const FIXTURE: Fixture = Fixture {
    name: "two pools with one slot each",
    config: |lab| {
        let mut config = Config::small(lab.sim().api_url());
        config.reconcile = "2s".into();
        config.pools = vec![one("greedy", 0), one("other", 8)];
        Ok(Some(config))
    },
    await_ready: await_settled,
};

pub(super) const SUITE: Suite = suite![FIXTURE;
    while_one_job_takes_every_shared_table_other_jobs_and_the_host_work,
];

const PROGRAM: &str = include_str!("tables/exhaust.c");
/// Place of the program on the host and in the container.
const INSTALLED: &str = "/run/testbed/exhaust";

/// Tables in the order in which they are taken, with the least number that a runner's part has. The last one
/// also keeps the runner itself from new connections.
const TABLES: [(&str, u32); 7] = [
    ("inotify", 900),
    ("terminals", 900),
    ("namespaces", 900),
    ("timers", 900),
    ("message-queues", 2),
    ("aio", 64),
    ("connections", 40_000),
];

fn while_one_job_takes_every_shared_table_other_jobs_and_the_host_work(
    lab: &mut Lab,
) -> Result<()> {
    install(lab)?;
    let forever = pool_job("greedy", "greedy", "sleep infinity");
    let id = lab.sim().queue(&forever)?;
    let machine = await_busy(lab, id)?.machine();
    let copy = format!(
        "nsenter --target {} --all -- \
         sh -c 'cat >/tmp/exhaust && chmod 755 /tmp/exhaust' <{INSTALLED}",
        leader(lab, &machine)?
    );
    lab.host().sh(&copy)?;
    for (table, least) in TABLES {
        take(lab, &machine, table, least).with_context(|| format!("take {table}"))?;
        others_work(lab).with_context(|| format!("while a job holds its part of {table}"))?;
    }
    // The next claim has an undisturbed runner.
    lab.host()
        .run(&["systemctl", "stop", "runner-greedy@1.service"])
        .map(drop)?;
    await_settled(lab)
}

/// Compiles the program and puts it on the host.
fn install(lab: &Lab) -> Result<()> {
    let work = tempfile::tempdir()?;
    let (source, program) = (work.path().join("exhaust.c"), work.path().join("exhaust"));
    std::fs::write(&source, PROGRAM)?;
    bed::run(
        Command::new("cc")
            .args(["-O1", "-Wall", "-Werror", "-static", "-o"])
            .args([&program, &source]),
    )?;
    lab.host().install(&program, INSTALLED, 0o755)
}

/// Takes a table as the job's user, and waits until the program holds what it got.
fn take(lab: &Lab, machine: &str, table: &str, least: u32) -> Result<()> {
    let unit = format!("--unit=exhaust-{table}");
    let said = format!("/tmp/taken-{table}");
    let start = [
        "systemd-run",
        "--quiet",
        "--uid=runner",
        "--property=LimitNOFILE=65536",
        &unit,
        "/tmp/exhaust",
        table,
        &said,
        GITHUB,
    ];
    in_container(lab, machine, &start)?;
    let read = format!("cat {said} 2>/dev/null || true");
    let taken = wait_until("the program to hold its part", SOON, || {
        let text = in_container(lab, machine, &["sh", "-c", &read])?;
        Ok(match text.trim().parse::<u32>() {
            Ok(taken) => Seen::Done(taken),
            Err(_) => Seen::NotYet(text),
        })
    })?;
    ensure!(taken >= least, "it got {taken} and not {least}");
    Ok(())
}

/// Runs a job in the other pool, waits until a new container has booted there, and starts a service of the host
/// that has its own namespaces.
fn others_work(lab: &Lab) -> Result<()> {
    let id = lab.sim().queue(&pool_job("other", "other", "true"))?;
    let job = lab.sim().await_success(id, SOON)?;
    let name = job.runner_name.context("a job has a runner")?;
    lab.await_status("a new runner in the other pool", SOON, |status| {
        let ended = status.ended(&name).is_some();
        let idle = status.in_phase(PhaseKind::Idle);
        (ended && idle.iter().any(|runner| runner.machine() == "other-1")).then_some(())
    })?;
    let service = [
        "systemd-run",
        "--quiet",
        "--collect",
        "--wait",
        "--property=ProtectHostname=yes",
        "--property=PrivateTmp=yes",
        "true",
    ];
    lab.host()
        .run(&service)
        .context("start a service with its own namespaces")
        .map(drop)
}
