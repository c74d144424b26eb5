//! Ends of runners: root's sweep runs whole, and under the rules that the runner started with.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use status::{PhaseKind, RunnerStatus, Verdict};

use super::common::{
    SOON, as_its_root, await_verdict, ensure_says, finish_held, in_container, quick_sweeps,
    running, slow_sweeps, spare, start_held,
};
use super::fixture::{SMALL, one, small};
use super::suite::{Suite, suite};
use crate::bed::note;
use crate::lab::{DAEMON, Lab, RUN_DIR};
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![SMALL;
    a_kill_during_a_slow_sweep_leaves_the_sweep_alone,
    a_sweep_removes_control_groups_of_any_depth,
    a_runner_does_not_start_in_the_control_groups_of_an_earlier_one,
    a_clean_up_removes_and_counts_control_groups,
    a_deep_tree_of_the_daemon_delays_no_start_and_is_removed,
    a_runner_keeps_its_limits_when_a_deploy_lowers_them,
    a_runner_of_a_removed_template_ends_under_its_rules,
];

fn a_kill_during_a_slow_sweep_leaves_the_sweep_alone(lab: &mut Lab) -> Result<()> {
    let spare = spare(&lab.await_settled(SOON)?)?;
    slow_sweeps(lab)?;
    let outcome = kill_while_it_sweeps(lab, &spare.unit);
    quick_sweeps(lab)?;
    outcome?;
    lab.await_nothing_left(SOON)?;
    let invocation = spare.invocation.as_ref().context("a spare was started")?;
    let record = format!("{RUN_DIR}/lives/{}/{invocation}.end.json", spare.machine());
    let record = lab.host().run(&["cat", &record])?;
    ensure!(record.contains("\"KILL\""), "another end: {record}");
    Ok(())
}

/// Ends a container at once, and lets the daemon kill it while its sweep runs.
fn kill_while_it_sweeps(lab: &Lab, unit: &str) -> Result<()> {
    let main = lab.show(unit, "MainPID")?;
    lab.host().run(&["kill", "-KILL", &main])?;
    wait_until("the sweep", SOON, || {
        let state = lab.show(unit, "SubState")?;
        Ok(if state == "stop-post" {
            Seen::Done(())
        } else {
            Seen::NotYet(state)
        })
    })?;
    // A drain kills spares.
    lab.api("POST", "/drain")?;
    wait_until("the daemon's call", SOON, || {
        let (state, job) = (lab.show(unit, "SubState")?, lab.show(unit, "Job")?);
        let is_called = state != "stop-post" || !(job.is_empty() || job == "0");
        Ok(if is_called {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{state}, job {job:?}"))
        })
    })?;
    let state = lab.show(unit, "SubState")?;
    ensure!(state == "stop-post", "the sweep was killed: {state}");
    Ok(())
}

/// Commands in perl that make control groups below the current one: a chain too deep for any path,
/// and a frozen group with a name that systemd uses in a container.
const DEEP: &str = r#"
mkdir "planted"; mkdir "init.scope";
open(my $freeze, ">", "init.scope/cgroup.freeze") or die "$!"; print $freeze "1\n"; close($freeze);
for (1 .. 2500) { mkdir "d" or die "$_: $!"; chdir "d" or die "$!" }
"#;

/// Returns the directory of the control group of a unit of pool `ci`.
fn group_of(unit: &str) -> String {
    format!("/sys/fs/cgroup/runners.slice/runners-ci.slice/{unit}")
}

/// Makes control groups of a unit that does not run, as an earlier runner may have left them.
fn plant_groups(lab: &Lab, unit: &str) -> Result<()> {
    let payload = format!("{}/payload", group_of(unit));
    lab.host().run(&["mkdir", "-p", &payload])?;
    let script = format!("chdir '{payload}' or die;{DEEP}");
    lab.host().run(&["perl", "-e", &script]).map(drop)
}

fn a_sweep_removes_control_groups_of_any_depth(lab: &mut Lab) -> Result<()> {
    let spare = spare(&lab.await_settled(SOON)?)?;
    let group = group_of(&spare.unit);
    // The launcher's bounds, without which a container's root makes such a tree.
    lab.host().sh(&format!(
        "for file in depth descendants; do echo max >{group}/cgroup.max.$file; done"
    ))?;
    let script = format!("chdir '/sys/fs/cgroup' or die;mkdir 'x';chdir 'x';{DEEP}");
    as_its_root(
        lab,
        &spare.machine(),
        &format!("perl -e '{}'", script.replace('\'', "\"")),
    )?;
    lab.host().run(&["systemctl", "stop", &spare.unit])?;
    let left = lab
        .host()
        .sh(&format!("ls -d {group} 2>/dev/null || true"))?;
    ensure!(left.is_empty(), "left: {left}");
    lab.await_settled(SOON).map(drop)
}

fn a_runner_does_not_start_in_the_control_groups_of_an_earlier_one(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let before = running(lab)?;
    let slots = (1..=4).map(|slot| format!("ci-{slot}"));
    let vacant: Vec<String> = slots.filter(|slot| !before.contains_key(slot)).collect();
    for machine in &vacant {
        plant_groups(
            lab,
            &format!("runner-{}.service", machine.replace('-', "@")),
        )?;
    }
    let (id, busy) = start_held(lab, "above")?;
    let next = lab.await_status("a spare above old groups", SOON, |status| {
        let spares = status.in_phase(PhaseKind::Spare);
        let next = spares
            .iter()
            .find(|spare| vacant.contains(&spare.machine()));
        next.map(|spare| (*spare).clone())
    })?;
    let inside = in_container(lab, &next.machine(), &["ls", "/sys/fs/cgroup"])?;
    ensure!(!inside.contains("planted"), "{inside}");
    let group = group_of(&next.unit);
    for (file, bound) in [("depth", "24"), ("descendants", "500")] {
        let found = lab
            .host()
            .run(&["cat", &format!("{group}/cgroup.max.{file}")])?;
        ensure!(found.trim() == bound, "{file} is {found}");
    }
    finish_held(lab, id, &busy)?;
    // The slots in which no runner started.
    lab.host().run(&["cleanup-all-containers", "--yes"])?;
    lab.await_settled(SOON).map(drop)
}

fn a_clean_up_removes_and_counts_control_groups(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    // A pool that is no longer configured has nothing else on this host.
    let former = "/sys/fs/cgroup/runners.slice/runners-former.slice/runner-former@7.service";
    lab.host()
        .run(&["mkdir", "-p", &format!("{former}/payload")])?;
    plant_groups(lab, "runner-ci@4.service")?;
    let said = lab.host().run(&["cleanup-all-containers", "--yes"])?;
    ensure_says(&said, &["Nothing is left", " control groups"])?;
    let groups = [former, &group_of("runner-ci@4.service")].join(" ");
    let left = lab
        .host()
        .sh(&format!("ls -d {groups} 2>/dev/null || true"))?;
    lab.host().sh(&format!(
        "rmdir {} 2>/dev/null || true",
        former.rsplit_once('/').map_or("", |(slice, _)| slice)
    ))?;
    ensure!(left.is_empty(), "left: {left}");
    lab.await_settled(SOON).map(drop)
}

/// Longest start of a daemon whose sweep has much to remove, with the slowness of this machine.
const SLOW_START: Duration = Duration::from_secs(12);

fn a_deep_tree_of_the_daemon_delays_no_start_and_is_removed(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let sockets = format!("{RUN_DIR}/slots/gone-7");
    lab.host().sh(&format!(
        "install --directory --owner=runner-controller {sockets} {RUN_DIR}/lives/gone-7"
    ))?;
    // As a daemon that an attacker controls makes it; the last directory is closed to its owner.
    let script = format!(
        "chdir '{sockets}' or die; for (1 .. 40000) {{ mkdir 'd' or die \"$_: $!\"; chdir 'd' or die }} mkdir 'x', 0; "
    );
    let user = [
        "--reuid=runner-controller",
        "--regid=runner-controller",
        "--clear-groups",
    ];
    let mut command = vec!["setpriv"];
    command.extend(user);
    command.extend(["--", "perl", "-e", &script]);
    lab.host().run(&command)?;
    // A start that does not finish the removal leaves less to the next one.
    let mut starts = 0;
    let left = || {
        lab.host()
            .sh(&format!("ls -d {sockets} 2>/dev/null || true"))
    };
    while starts < 5 && !left()?.is_empty() {
        lab.stop()?;
        let began = Instant::now();
        lab.start()?;
        let took = began.elapsed();
        starts += 1;
        note(&format!("start {starts} took {:.1} s", took.as_secs_f64()));
        ensure!(took < SLOW_START, "start {starts} took {took:?}");
    }
    ensure!(left()?.is_empty(), "it is there after {starts} starts");
    lab.await_settled(SOON).map(drop)
}

/// Properties of a unit that protect the host from its job, and their values in the fixture.
const RULES: [(&str, &str); 5] = [
    ("MemoryMax", "1073741824"),
    ("MemorySwapMax", "0"),
    ("TasksMax", "2048"),
    ("DevicePolicy", "closed"),
    ("KillMode", "mixed"),
];

fn ensure_rules(lab: &Lab, unit: &str) -> Result<()> {
    for (property, value) in RULES {
        let found = lab.show(unit, property)?;
        ensure!(found == value, "{property} of {unit} is {found}");
    }
    let sweep = lab.show(unit, "ExecStopPost")?;
    ensure_says(&sweep, &["sweep ci"])
}

/// Ends a held job, and checks that its end was recorded and its slot swept.
fn ensure_ends_whole(lab: &Lab, id: u64, busy: &RunnerStatus) -> Result<()> {
    finish_held(lab, id, busy)?;
    await_verdict(
        lab,
        busy.runner.as_deref().unwrap_or_default(),
        Verdict::JobDone,
    )?;
    let invocation = busy
        .invocation
        .as_ref()
        .context("a busy runner was started")?;
    let record = format!("{RUN_DIR}/lives/{}/{invocation}.end.json", busy.machine());
    let record = lab.host().run(&["cat", &record])?;
    ensure_says(&record, &["success"])?;
    let own = format!("/run/systemd/system/{}", busy.unit);
    let left = lab.host().sh(&format!("ls {own} 2>/dev/null || true"))?;
    ensure!(left.is_empty(), "left: {left}");
    Ok(())
}

fn a_runner_keeps_its_limits_when_a_deploy_lowers_them(lab: &mut Lab) -> Result<()> {
    let (id, busy) = start_held(lab, "limited")?;
    let lower = small(lab.sim().api_url()).with("ci", |pool| pool.memory = "700 MiB".into());
    lab.install(&lower)?;
    let outcome = ensure_rules(lab, &busy.unit).and_then(|()| {
        lab.host().run(&["systemctl", "restart", DAEMON])?;
        ensure_ends_whole(lab, id, &busy)?;
        // The next runner has the new limit.
        lab.await_status("a spare with the new limit", SOON, |status| {
            let mut spares = status.in_phase(PhaseKind::Spare).into_iter();
            spares
                .any(|spare| {
                    lab.show(&spare.unit, "MemoryMax")
                        .is_ok_and(|max| max == "734003200")
                })
                .then_some(())
        })
    });
    lab.install(&small(lab.sim().api_url()))?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    outcome?;
    lab.await_settled(SOON).map(drop)
}

fn a_runner_of_a_removed_template_ends_under_its_rules(lab: &mut Lab) -> Result<()> {
    let (id, busy) = start_held(lab, "former")?;
    let mut other = small(lab.sim().api_url());
    other.pools = vec![one("other", 8)];
    // A NixOS host removes the template of a pool that the configuration no longer has.
    lab.install(&other)?;
    lab.host()
        .run(&["rm", "/etc/systemd/system/runner-ci@.service"])?;
    lab.host().run(&["systemctl", "daemon-reload"])?;
    let outcome = ensure_rules(lab, &busy.unit).and_then(|()| {
        lab.host().run(&["systemctl", "restart", DAEMON])?;
        ensure_ends_whole(lab, id, &busy)
    });
    lab.install(&small(lab.sim().api_url()))?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    outcome?;
    lab.await_settled(SOON).map(drop)
}
