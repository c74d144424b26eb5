//! The daemon is killed, and systemd restarts and machined hangs: no job is lost and no container
//! started twice.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use github_sim::{Endpoint, Fault};
use status::{Invocation, PhaseKind, RunnerStatus, Verdict};

use super::common::{
    SOON, await_no_strangers, await_verdict, daemon_pid, ensure_kept, ensure_says, finish_held,
    idle, kill_and_start, machine_of, release, run, running, spare, start_held,
};
use super::fixture::SMALL;
use super::suite::{Suite, suite};
use crate::lab::{DAEMON, Lab};
use crate::readings::summary;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![SMALL;
    a_daemon_killed_beside_a_spare_and_an_idle_runner_keeps_both,
    a_daemon_killed_while_a_job_runs_keeps_it,
    a_job_that_ends_without_a_daemon_is_done,
    a_daemon_killed_while_a_container_boots_takes_it_over,
    a_daemon_killed_in_the_middle_of_a_mint_mints_again,
    a_daemon_killed_while_a_runner_registers_takes_it_over,
    a_restarted_daemon_takes_everything_over,
    a_reexecuted_systemd_is_still_heard,
    a_machined_that_hangs_costs_nothing,
    a_restarted_journald_costs_nothing,
];

/// Holds every boot of the pool before its launcher runs, until [`let_boot`].
const HOLD: &str = "/run/systemd/system/runner-ci@.service.d/50-hold.conf";
const GATE: &str = "/run/testbed/boot";

/// Checks that the pool has its runners, and that all runners since the restart ended as
/// `job_done`.
fn ensure_undisturbed(lab: &Lab) -> Result<()> {
    let status = lab.await_settled(SOON)?;
    for pool in &status.pools {
        ensure!(
            pool.verdicts
                .keys()
                .all(|verdict| *verdict == Verdict::JobDone),
            "verdicts since the restart: {:?}",
            pool.verdicts
        );
    }
    await_no_strangers(lab)
}

fn a_daemon_killed_beside_a_spare_and_an_idle_runner_keeps_both(lab: &mut Lab) -> Result<()> {
    let settled = lab.await_settled(SOON)?;
    let (first, second) = (idle(&settled)?, spare(&settled)?);
    let before = running(lab)?;
    kill_and_start(lab)?;
    ensure_kept(lab, &before)?;
    // The idle runner takes the first job. The killed daemon accepted the spare's connection,
    // and this daemon answers it, so the spare takes the second job.
    for expected in [first, second] {
        let (id, busy) = start_held(lab, "after")?;
        ensure!(
            busy.invocation == expected.invocation,
            "{busy:?} took the job of {expected:?}"
        );
        finish_held(lab, id, &busy)?;
        await_verdict(lab, &busy.runner.unwrap_or_default(), Verdict::JobDone)?;
    }
    ensure_undisturbed(lab)
}

fn a_daemon_killed_while_a_job_runs_keeps_it(lab: &mut Lab) -> Result<()> {
    let (id, busy) = start_held(lab, "long")?;
    let before = running(lab)?;
    kill_and_start(lab)?;
    let now = lab.await_status("the job to be known", SOON, |status| {
        status
            .machine(&busy.machine())
            .filter(|now| now.phase == PhaseKind::Busy && now.invocation == busy.invocation)
            .cloned()
    })?;
    ensure!(
        now.job.is_some_and(|job| job.note.run_id == id.to_string()),
        "the job-started report is lost"
    );
    ensure_kept(
        lab,
        &BTreeMap::from([(busy.machine(), before[&busy.machine()].clone())]),
    )?;
    finish_held(lab, id, &busy)?;
    await_verdict(lab, &busy.runner.unwrap_or_default(), Verdict::JobDone)?;
    ensure_undisturbed(lab)
}

fn a_job_that_ends_without_a_daemon_is_done(lab: &mut Lab) -> Result<()> {
    let (id, busy) = start_held(lab, "alone")?;
    lab.kill()?;
    lab.stop()?;
    release(lab, &busy.machine())?;
    lab.sim().await_success(id, SOON)?;
    wait_until("its container to end", SOON, || {
        let now = running(lab)?;
        Ok(if now.get(&busy.machine()) == busy.invocation.as_ref() {
            Seen::NotYet(format!("{now:?}"))
        } else {
            Seen::Done(())
        })
    })?;
    // The same holds for a job that starts and ends without a daemon.
    let second = lab.sim().queue(&pool_job("unseen", "ci", "true"))?;
    let second = if lab.sim().registered()?.is_empty() {
        None
    } else {
        lab.sim().await_success(second, SOON)?.runner_name
    };
    lab.start()?;
    await_verdict(lab, &busy.runner.unwrap_or_default(), Verdict::JobDone)?;
    if let Some(second) = second {
        await_verdict(lab, &second, Verdict::JobDone)?;
    }
    ensure_undisturbed(lab)
}

fn hold_boots(lab: &Lab) -> Result<()> {
    let text =
        format!("[Service]\nExecStartPre=/bin/sh -c 'until [ -e {GATE} ]; do sleep 0.05; done'\n");
    lab.host().run(&["rm", "-f", GATE])?;
    lab.host().write(HOLD, text.as_bytes(), 0o644)?;
    lab.host().run(&["systemctl", "daemon-reload"]).map(drop)
}

fn let_boot(lab: &Lab) -> Result<()> {
    lab.host().write(GATE, b"", 0o644)?;
    lab.host().run(&["rm", "-f", HOLD])?;
    lab.host().run(&["systemctl", "daemon-reload"]).map(drop)
}

fn a_daemon_killed_while_a_container_boots_takes_it_over(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    hold_boots(lab)?;
    let outcome = booting(lab);
    let_boot(lab)?;
    let (id, busy, before) = outcome?;
    finish_held(lab, id, &busy)?;
    let booted = lab.await_status("the boot to end", SOON, |status| {
        status
            .runners()
            .find(|now| now.invocation.as_ref() == Some(&before) && now.phase != PhaseKind::Booting)
            .cloned()
    })?;
    ensure!(
        booted.phase != PhaseKind::Retiring,
        "it was not wanted: {booted:?}"
    );
    ensure_undisturbed(lab)
}

/// Returns the job that made a boot necessary, its runner, and the invocation that boots across
/// the restart.
fn booting(lab: &Lab) -> Result<(u64, RunnerStatus, Invocation)> {
    let (id, busy) = start_held(lab, "meanwhile")?;
    let machine = lab.await_status("a container that boots", SOON, |status| {
        let booting = status.in_phase(PhaseKind::Booting);
        booting.first().map(|runner| runner.machine())
    })?;
    let invocation = wait_until("its unit to start", SOON, || {
        let now = running(lab)?;
        Ok(now.get(&machine).map_or_else(
            || Seen::NotYet(format!("{now:?}")),
            |life| Seen::Done(life.clone()),
        ))
    })?;
    let before = running(lab)?;
    kill_and_start(lab)?;
    ensure_kept(lab, &before)?;
    let status = lab.look()?;
    ensure!(
        status
            .machine(&machine)
            .is_some_and(|now| now.phase == PhaseKind::Booting),
        "it is not taken for booting: {}",
        summary(&status)
    );
    Ok((id, busy, invocation))
}

fn a_daemon_killed_in_the_middle_of_a_mint_mints_again(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    lab.sim()
        .fault(Endpoint::Mint, Some(1), &Fault::Delay { ms: 1500 })?;
    let (id, busy) = start_held(lab, "meanwhile")?;
    let minting = lab.await_status("a mint under way", SOON, |status| {
        status
            .in_phase(PhaseKind::Minting)
            .first()
            .map(|runner| (*runner).clone())
    })?;
    let before = running(lab)?;
    kill_and_start(lab)?;
    ensure_kept(lab, &before)?;
    let now = lab.await_status("another mint", SOON, |status| {
        status
            .machine(&minting.machine())
            .filter(|now| now.runner_id.is_some())
            .cloned()
    })?;
    ensure!(
        now.invocation == minting.invocation && now.runner != minting.runner,
        "{minting:?} became {now:?}"
    );
    finish_held(lab, id, &busy)?;
    run(lab, "true")?;
    ensure_undisturbed(lab)
}

fn a_daemon_killed_while_a_runner_registers_takes_it_over(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    lab.sim()
        .fault(Endpoint::Token, Some(1), &Fault::Delay { ms: 1500 })?;
    let (id, busy) = start_held(lab, "meanwhile")?;
    let registering = lab.await_status("a runner that registers", SOON, |status| {
        status
            .in_phase(PhaseKind::Registering)
            .first()
            .map(|runner| (*runner).clone())
    })?;
    let before = running(lab)?;
    kill_and_start(lab)?;
    ensure_kept(lab, &before)?;
    let now = lab.await_status("it to be idle", SOON, |status| {
        status
            .machine(&registering.machine())
            .filter(|now| now.phase == PhaseKind::Idle)
            .cloned()
    })?;
    ensure!(
        now.runner == registering.runner && now.runner_id == registering.runner_id,
        "{registering:?} became {now:?}"
    );
    finish_held(lab, id, &busy)?;
    ensure_undisturbed(lab)
}

fn a_restarted_daemon_takes_everything_over(lab: &mut Lab) -> Result<()> {
    let (id, busy) = start_held(lab, "long")?;
    lab.await_status("a spare and an idle runner beside it", SOON, |status| {
        (status.in_phase(PhaseKind::Idle).len() == 1
            && status.in_phase(PhaseKind::Spare).len() == 1)
            .then_some(())
    })?;
    let before = running(lab)?;
    ensure!(before.len() == 3, "{before:?}");
    lab.sim().forget_calls()?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    ensure_kept(lab, &before)?;
    let mints = lab.sim().stats()?.calls_of("mint");
    ensure!(mints == 0, "{mints} mints for a restart");
    finish_held(lab, id, &busy)?;
    ensure_undisturbed(lab)
}

/// Checks that a pool runs jobs after systemd restarted or machined hung, and that signals report
/// their ends.
fn ensure_heard(lab: &Lab, before: &BTreeMap<String, Invocation>, pid: &str) -> Result<()> {
    ensure_kept(lab, before)?;
    let since = lab.host().run(&["date", "+%s"])?;
    let job = lab.sim().queue(&pool_job("after", "ci", "true"))?;
    let job = lab.sim().await_success(job, SOON)?;
    let name = job.runner_name.unwrap_or_default();
    await_verdict(lab, &name, Verdict::JobDone)?;
    ensure!(daemon_pid(lab)? == pid, "the daemon was restarted too");
    let log = lab.journalctl(&[
        "--unit",
        DAEMON,
        "--since",
        &format!("@{}", since.trim()),
        "--output=cat",
    ])?;
    ensure!(
        !log.contains("the full reconcile found the end"),
        "the end of {} was not signalled: {log}",
        machine_of(&name)
    );
    ensure_says(&log, &[&name, "ended, job_done"])?;
    ensure_undisturbed(lab)
}

fn a_reexecuted_systemd_is_still_heard(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let (before, pid) = (running(lab)?, daemon_pid(lab)?);
    lab.host().run(&["systemctl", "daemon-reexec"])?;
    ensure_heard(lab, &before, &pid)
}

fn a_machined_that_hangs_costs_nothing(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let (before, pid) = (running(lab)?, daemon_pid(lab)?);
    let signal = |signal: &str| {
        let signal = format!("--signal={signal}");
        lab.host()
            .run(&["systemctl", "kill", &signal, "systemd-machined.service"])
            .map(drop)
    };
    lab.host()
        .run(&["systemctl", "start", "systemd-machined.service"])?;
    signal("STOP")?;
    let heard = ensure_heard(lab, &before, &pid);
    signal("CONT")?;
    heard
}

fn a_restarted_journald_costs_nothing(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let (before, pid) = (running(lab)?, daemon_pid(lab)?);
    lab.host()
        .run(&["systemctl", "restart", "systemd-journald.service"])?;
    ensure_heard(lab, &before, &pid)
}
