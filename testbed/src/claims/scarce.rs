//! A host that runs short of a resource: admission closes with its name and opens by itself,
//! jobs run on, and no record is lost.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use status::{Invocation, PhaseKind, RunnerStatus, Verdict};

use super::common::{
    SOON, await_no_strangers, await_open, await_verdict, daemon_pid, ensure_says, finish_held, run,
    running, start_held,
};
use super::fixture::{Fixture, small};
use super::suite::{Suite, suite};
use crate::binaries::CONTROLLER;
use crate::config::Config;
use crate::lab::{DAEMON, Lab};
use crate::readings::summary;
use crate::wait::{Seen, wait_until};

/// One pool on disk layers, on a host whose disks are small and can be made smaller.
pub(super) const FIXTURE: Fixture = Fixture {
    name: "scarce host",
    config: |lab| config(lab).map(Some),
    await_ready: super::fixture::await_settled,
};

pub(super) const SUITE: Suite = suite![FIXTURE;
    a_full_state_disk_closes_admission_and_loses_nothing,
    a_daemon_starts_without_inodes_for_its_records,
    a_daemon_works_on_a_read_only_state_disk,
    a_disk_without_room_for_a_layer_closes_admission,
    a_full_run_directory_closes_admission_and_takes_the_last_records,
    reserved_memory_closes_admission_with_its_name,
    a_daemon_at_its_limit_of_files_keeps_what_it_has,
];

/// Directory of the daemon's records, on a small file system.
const STATE: &str = "/var/lib/scarce";
const STATE_MOUNT: &str = "size=16M,nr_inodes=500";

fn layers(lab: &Lab) -> String {
    // Beside the other layers, so that it is not taken for a left-over.
    format!("{}-scarce", lab.host().layer_dir())
}

/// Mounts the disks, and returns a configuration that uses them.
fn config(lab: &Lab) -> Result<Config> {
    for (dir, options) in [(STATE, STATE_MOUNT), (&layers(lab), "size=1G")] {
        lab.host().sh(&format!(
            "mkdir -p {dir}; umount -q {dir} || true; mount -t tmpfs -o {options} scarce {dir}"
        ))?;
    }
    Ok(on_them(lab))
}

fn on_them(lab: &Lab) -> Config {
    let mut config = small(lab.sim().api_url()).with("ci", |pool| {
        pool.layer = "disk";
        pool.layer_size = "128 MiB".into();
    });
    config.layer_dir = layers(lab);
    config.top = format!("state_dir = {STATE:?}\n");
    config
}

fn remount(lab: &Lab, dir: &str, options: &str) -> Result<()> {
    lab.host()
        .run(&["mount", "-o", &format!("remount,{options}"), dir])
        .map(drop)
}

/// Returns the used part of a file system, by one of df's columns.
fn df(lab: &Lab, column: &str, dir: &str) -> Result<u64> {
    let output = format!("--output={column}");
    let text = lab.host().run(&["df", "--block-size=1", &output, dir])?;
    let number = text.lines().last().unwrap_or_default().trim();
    number.parse().with_context(|| text.clone())
}

/// Waits until admission is closed for this resource, and returns the reason.
fn await_closed(lab: &Lab, resource: &str) -> Result<String> {
    let prefix = format!("{resource}: ");
    lab.await_status(
        &format!("admission closed for {resource}"),
        SOON,
        |status| {
            let mut reasons = status.closed.iter();
            reasons.find(|why| why.starts_with(&prefix)).cloned()
        },
    )
}

/// Starts a job, and waits for a spare and an idle runner beside it.
fn a_job_and_two_more(lab: &Lab) -> Result<(u64, RunnerStatus)> {
    let (id, busy) = start_held(lab, "long")?;
    lab.await_status("a spare and an idle runner beside it", SOON, |status| {
        (status.in_phase(PhaseKind::Idle).len() == 1
            && status.in_phase(PhaseKind::Spare).len() == 1)
            .then_some(())
    })?;
    Ok((id, busy))
}

/// Ends the job and checks that its runner gets a verdict and is not replaced. Returns the
/// runner's name.
fn end_and_not_be_replaced(lab: &Lab, id: u64, busy: &RunnerStatus) -> Result<String> {
    let others: BTreeMap<String, Invocation> = running(lab)?
        .into_iter()
        .filter(|(machine, _)| *machine != busy.machine())
        .collect();
    finish_held(lab, id, busy)?;
    let name = busy.runner.clone().unwrap_or_default();
    await_verdict(lab, &name, Verdict::JobDone)?;
    let now = running(lab)?;
    ensure!(now == others, "{others:?} became {now:?}");
    Ok(name)
}

/// Waits until `/health` reports, or does not report, the records.
fn await_records(lab: &Lab, troubled: bool) -> Result<()> {
    wait_until("the reason about the records to change", SOON, || {
        let health = lab.api("GET", "/health")?;
        Ok(if health.body.contains("records: ") == troubled {
            Seen::Done(())
        } else {
            Seen::NotYet(health.body)
        })
    })
}

/// Checks that the next daemon finds this verdict in the records.
fn ensure_kept(lab: &Lab, runner: &str, verdict: Verdict) -> Result<()> {
    await_records(lab, false)?;
    lab.await_settled(SOON)?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    let status = lab.look()?;
    ensure!(
        status
            .ended(runner)
            .is_some_and(|ended| ended.verdict == verdict),
        "the verdict of {runner} was lost: {}",
        summary(&status)
    );
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}

fn a_full_state_disk_closes_admission_and_loses_nothing(lab: &mut Lab) -> Result<()> {
    let (id, busy) = a_job_and_two_more(lab)?;
    let filler = format!("{STATE}/filler");
    lab.host().sh(&format!(
        "head -c 64M /dev/zero >{filler} 2>/dev/null || true"
    ))?;
    let outcome = (|| {
        ensure_says(&await_closed(lab, "state_bytes")?, &[STATE])?;
        let examined = lab.host().output(&[CONTROLLER, "doctor"])?;
        let said = String::from_utf8_lossy(&examined.stdout);
        ensure_says(
            &said,
            &[
                "problem  resources: state_bytes: ",
                "du -xah /var/lib/scarce | sort -h",
            ],
        )?;
        end_and_not_be_replaced(lab, id, &busy)
    })();
    lab.host().run(&["rm", &filler])?;
    let name = outcome?;
    await_open(lab, SOON)?;
    ensure_kept(lab, &name, Verdict::JobDone)
}

fn a_daemon_starts_without_inodes_for_its_records(lab: &mut Lab) -> Result<()> {
    let (id, busy) = a_job_and_two_more(lab)?;
    let before = running(lab)?;
    lab.stop()?;
    let fill =
        format!("cd {STATE}; mkdir filler; for i in $(seq 600); do >filler/$i || exit 0; done");
    lab.host().sh(&format!("({fill}) 2>/dev/null"))?;
    let outcome = (|| {
        lab.start()?;
        await_closed(lab, "state_files")?;
        await_records(lab, true)?;
        // The records can be read, so the daemon knows every runner.
        let status = lab.look()?;
        for (machine, life) in &before {
            let known = status.machine(machine);
            ensure!(
                known.is_some_and(|runner| runner.invocation.as_ref() == Some(life)),
                "{machine} was forgotten: {}",
                summary(&status)
            );
        }
        ensure!(
            status
                .machine(&busy.machine())
                .is_some_and(|now| now.runner == busy.runner),
            "{busy:?} became {:?}",
            status.machine(&busy.machine())
        );
        end_and_not_be_replaced(lab, id, &busy)
    })();
    lab.host().run(&["rm", "-r", &format!("{STATE}/filler")])?;
    let name = outcome?;
    await_open(lab, SOON)?;
    ensure_kept(lab, &name, Verdict::JobDone)
}

fn a_daemon_works_on_a_read_only_state_disk(lab: &mut Lab) -> Result<()> {
    lab.stop()?;
    // The file system becomes read-only, as the kernel does after an error.
    remount(lab, STATE, "ro=fs")?;
    let outcome = (|| {
        lab.start()?;
        let status = lab.await_settled(SOON)?;
        ensure!(status.closed.is_empty(), "{}", summary(&status));
        let id = lab
            .sim()
            .queue(&crate::sim::pool_job("job", "ci", "true"))?;
        let name = lab
            .sim()
            .await_success(id, SOON)?
            .runner_name
            .unwrap_or_default();
        await_verdict(lab, &name, Verdict::JobDone)?;
        await_records(lab, true)?;
        Ok(name)
    })();
    remount(lab, STATE, "rw=fs")?;
    ensure_kept(lab, &outcome?, Verdict::JobDone)
}

fn a_disk_without_room_for_a_layer_closes_admission(lab: &mut Lab) -> Result<()> {
    let dir = layers(lab);
    let (id, busy) = a_job_and_two_more(lab)?;
    let size = df(lab, "used", &dir)? + (100 << 20);
    remount(lab, &dir, &format!("size={size}"))?;
    let outcome = (|| {
        ensure_says(&await_closed(lab, "layer_bytes")?, &[&dir])?;
        end_and_not_be_replaced(lab, id, &busy)
    })();
    remount(lab, &dir, "size=1G")?;
    outcome?;
    await_open(lab, SOON)?;
    lab.await_settled(SOON).map(drop)
}

fn a_full_run_directory_closes_admission_and_takes_the_last_records(lab: &mut Lab) -> Result<()> {
    let (id, busy) = a_job_and_two_more(lab)?;
    let size = df(lab, "size", "/run")?;
    let scarce = df(lab, "used", "/run")? + (700 << 10);
    remount(lab, "/run", &format!("size={scarce}"))?;
    let outcome = (|| {
        await_closed(lab, "run_bytes")?;
        end_and_not_be_replaced(lab, id, &busy)
    })();
    remount(lab, "/run", &format!("size={size}"))?;
    outcome?;
    await_open(lab, SOON)?;
    lab.await_settled(SOON).map(drop)
}

fn reserved_memory_closes_admission_with_its_name(lab: &mut Lab) -> Result<()> {
    let (id, busy) = a_job_and_two_more(lab)?;
    let good = on_them(lab);
    let mut greedy = good.clone();
    greedy.top.push_str("[reserve]\nmemory = \"1000 TiB\"\n");
    install(lab, &greedy)?;
    let outcome = (|| {
        ensure_says(&await_closed(lab, "memory")?, &["1024000.0 GiB"])?;
        let metrics = lab.api("GET", "/metrics")?.body;
        ensure_says(
            &metrics,
            &[
                "runner_controller_resource_short{resource=\"memory\"} 1",
                "runner_controller_resource_short{resource=\"state_bytes\"} 0",
            ],
        )?;
        let open = |line: &str| line.starts_with("runner_controller_admission_open");
        ensure!(
            metrics
                .lines()
                .any(|line| open(line) && line.ends_with(" 0")),
            "{metrics}"
        );
        ensure_says(&lab.journal(DAEMON, 40), &["runs short of memory"])?;
        let output = lab.host().output(&["runner-status"])?;
        ensure!(output.status.code() == Some(1), "{:?}", output.status);
        ensure_says(&String::from_utf8_lossy(&output.stdout), &["memory: "])?;
        ensure_says(&lab.api("GET", "/health")?.body, &["memory: "])?;
        end_and_not_be_replaced(lab, id, &busy)
    })();
    install(lab, &good)?;
    outcome?;
    lab.await_settled(SOON).map(drop)
}

/// Installs another configuration.
fn install(lab: &Lab, config: &Config) -> Result<()> {
    lab.install(config)?;
    lab.reload()
}

const LEASH: &str = "/run/systemd/system/runner-controller.service.d/50-files.conf";

fn a_daemon_at_its_limit_of_files_keeps_what_it_has(lab: &mut Lab) -> Result<()> {
    let (id, busy) = a_job_and_two_more(lab)?;
    let before = running(lab)?;
    let open = lab
        .host()
        .sh(&format!("ls /proc/{}/fd | wc -l", daemon_pid(lab)?))?;
    let limit = open.trim().parse::<u64>()? + 6;
    let text = format!("[Service]\nLimitNOFILE={limit}\n");
    lab.host().write(LEASH, text.as_bytes(), 0o644)?;
    lab.host().run(&["systemctl", "daemon-reload"])?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    let outcome = (|| {
        await_closed(lab, "own_files")?;
        ensure!(
            running(lab)? == before,
            "{before:?} became {:?}",
            running(lab)?
        );
        end_and_not_be_replaced(lab, id, &busy)
    })();
    lab.host().run(&["rm", LEASH])?;
    lab.host().run(&["systemctl", "daemon-reload"])?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    outcome?;
    run(lab, "true")?;
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}
