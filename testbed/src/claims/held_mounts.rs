//! The holder of mounts: a slot does not wait until the kernel has freed the files of its last runner.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use status::RunnerStatus;

use super::common::{
    SOON, as_its_root, await_end, finish_held, idle, in_container, leader, run, start_held,
};
use super::fixture::{Fixture, await_settled, one};
use super::suite::{Suite, suite};
use crate::config::Config;
use crate::lab::{DAEMON, Lab};
use crate::wait::{Seen, wait_until};

/// One slot whose layer takes 262,144 files.
const FIXTURE: Fixture = Fixture {
    name: "one slot with a large layer",
    config: |lab| {
        let mut config = Config::small(lab.sim().api_url());
        config.reconcile = "2s".into();
        let mut pool = one("ci", 0);
        pool.layer_size = "1 GiB".into();
        pool.memory = "2 GiB".into();
        config.pools = vec![pool];
        Ok(Some(config))
    },
    await_ready: await_settled,
};

pub(super) const SUITE: Suite = suite![FIXTURE;
    a_slot_does_not_wait_for_the_files_of_its_last_runner,
    a_runner_whose_processes_end_at_once_leaves_nothing_with_the_holder,
    runners_start_and_end_without_the_holder,
];

const SOCKET: &str = "runner-controller-mounts.socket";
const SERVICE: &str = "runner-controller-mounts.service";
const DROP_IN: &str = "/run/systemd/system/runner-controller-mounts.service.d/broken.conf";
const BROKEN: &str = "[Service]\nExecStart=\nExecStart=/bin/false\n";
/// Number of files that a runner leaves.
const FILES: usize = 200_000;

/// Returns the process number of the holder.
fn holder(lab: &Lab) -> Result<String> {
    lab.show(SERVICE, "MainPID")
}

/// Returns the mount namespaces that the holder has, such as `mnt:[4026532000]`.
fn held(lab: &Lab) -> Result<BTreeSet<String>> {
    let links = lab.host().sh(&format!(
        "find /proc/{}/fd -type l -exec readlink {{}} + 2>/dev/null || true",
        holder(lab)?
    ))?;
    let names = links.lines().filter(|link| link.starts_with("mnt:["));
    Ok(names.map(str::to_owned).collect())
}

/// Returns the mount namespace of a container, as [`held`] names it.
fn namespace(lab: &Lab, machine: &str) -> Result<String> {
    let leader = leader(lab, machine)?;
    let link = format!("/proc/{leader}/ns/mnt");
    let name = lab.host().run(&["readlink", &link])?;
    Ok(name.trim().to_owned())
}

/// Waits until the holder has exactly these namespaces, and frees no files.
fn await_held(lab: &Lab, wanted: &BTreeSet<String>) -> Result<()> {
    wait_until(&format!("the holder to have {wanted:?}"), SOON, || {
        let (held, pid) = (held(lab)?, holder(lab)?);
        let threads = format!("ls /proc/{pid}/task 2>/dev/null | wc -l");
        let threads = lab.host().sh(&threads)?;
        Ok(if held == *wanted && threads.trim() == "1" {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{held:?}, {} threads", threads.trim()))
        })
    })
}

/// Waits until another runner is idle in the only slot.
fn await_next(lab: &Lab, last: &RunnerStatus) -> Result<RunnerStatus> {
    let status = lab.await_status("the slot's next runner", SOON, |status| {
        let next = idle(status).ok()?;
        (next.invocation != last.invocation).then(|| status.clone())
    })?;
    let next = idle(&status)?;
    ensure!(next.machine() == last.machine(), "{next:?} after {last:?}");
    Ok(next)
}

fn a_slot_does_not_wait_for_the_files_of_its_last_runner(lab: &mut Lab) -> Result<()> {
    let (id, runner) = start_held(lab, "files")?;
    let machine = runner.machine();
    let script = format!(
        "mkdir /var/left && cd /var/left && perl -e '{{
            for (1 .. {FILES}) {{ open(my $file, \">\", $_) or die \"$_: $!\" }}
         }}' && ls -U | wc -l"
    );
    let made = as_its_root(lab, &machine, &script)?;
    ensure!(made.trim() == FILES.to_string(), "{made}");
    let last = namespace(lab, &machine)?;
    await_held(lab, &BTreeSet::from([last.clone()]))?;
    // A stopped holder cannot drop the mounts, so the files exist until it goes on.
    let pid = holder(lab)?;
    lab.host().run(&["kill", "-STOP", &pid])?;
    let outcome = (|| {
        finish_held(lab, id, &runner)?;
        let next = await_next(lab, &runner)?;
        let next = namespace(lab, &next.machine())?;
        ensure!(
            next != last && held(lab)?.contains(&last),
            "{last} was freed before the start of {next}"
        );
        Ok(next)
    })();
    lab.host().run(&["kill", "-CONT", &pid])?;
    let next = outcome?;
    await_held(lab, &BTreeSet::from([next]))?;
    ensure!(holder(lab)? == pid, "the holder was replaced");
    // Nothing stays with it.
    lab.api("POST", "/drain")?;
    await_held(lab, &BTreeSet::new())
}

fn a_runner_whose_processes_end_at_once_leaves_nothing_with_the_holder(
    lab: &mut Lab,
) -> Result<()> {
    for signal in ["KILL", "TERM"] {
        let runner = idle(&lab.await_settled(SOON)?)?;
        let last = namespace(lab, &runner.machine())?;
        await_held(lab, &BTreeSet::from([last]))?;
        let kill = format!("--signal={signal}");
        let kill = ["systemctl", "kill", &kill, &runner.unit];
        lab.host().run(&kill)?;
        let name = runner.runner.clone().context("an idle runner has a name")?;
        await_end(lab, &name)?;
        let next = await_next(lab, &runner)?;
        await_held(lab, &BTreeSet::from([namespace(lab, &next.machine())?]))?;
    }
    Ok(())
}

fn runners_start_and_end_without_the_holder(lab: &mut Lab) -> Result<()> {
    let host = lab.host();
    let last = idle(&lab.await_settled(SOON)?)?;
    // A killed holder frees what it has, and the container lives on.
    host.run(&["systemctl", "kill", "--signal=KILL", SERVICE])?;
    let said = in_container(lab, &last.machine(), &["ls", "/home/runner"])?;
    ensure!(!said.is_empty(), "the container lost its files");
    run(lab, "touch mine")?;
    let next = await_next(lab, &last)?;
    await_held(lab, &BTreeSet::from([namespace(lab, &next.machine())?]))?;
    // A service that cannot start, and then no socket.
    host.write(DROP_IN, BROKEN.as_bytes(), 0o644)?;
    host.run(&["systemctl", "daemon-reload"])?;
    host.run(&["systemctl", "stop", SERVICE])?;
    let outcome = (|| {
        run(lab, "touch mine")?;
        let after = await_next(lab, &next)?;
        host.run(&["systemctl", "stop", SOCKET])?;
        run(lab, "touch mine")?;
        let after = await_next(lab, &after)?;
        let journal = lab.journal(&after.unit, 100);
        ensure!(
            journal
                .contains("cannot hand the mounts of ci-1 to /run/runner-controller/mounts.sock"),
            "{journal}"
        );
        Ok(after)
    })();
    host.run(&["rm", DROP_IN])?;
    host.run(&["systemctl", "daemon-reload"])?;
    host.sh(&format!(
        "systemctl reset-failed {SOCKET} {SERVICE} || true"
    ))?;
    // The daemon wants the socket.
    host.run(&["systemctl", "restart", DAEMON])?;
    let after = outcome?;
    run(lab, "touch mine")?;
    let next = await_next(lab, &after)?;
    await_held(lab, &BTreeSet::from([namespace(lab, &next.machine())?]))
}
