//! The wall around the containers: checked whole before each start and while they run, and the only
//! table that is ours to touch.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::common::{SOON, ensure_says, finish_held, leader, run, spare, start_held};
use super::fixture::SMALL;
use super::{Suite, suite};
use crate::lab::{DAEMON, Lab};
use crate::sim::NewJob;
use crate::status::{Ended, Status};

pub(super) const SUITE: Suite = suite![SMALL;
    no_container_starts_behind_a_table_that_was_changed,
    a_wall_that_falls_closes_admission_and_kills_no_job,
    a_check_that_does_not_come_closes_admission,
    no_other_table_is_touched,
];

const FIREWALL: &str = "runner-controller-firewall.service";
const TIMER: &str = "runner-controller-firewall-check.timer";
const CHECK: &str = "runner-controller-firewall-check.service";
/// The timer comes every 15 s.
const CHECKED: Duration = Duration::from_secs(45);
/// A report is good for a minute.
const STALE: Duration = Duration::from_secs(100);

/// Each way to change the table that a check has to notice, as a script.
const CHANGES: &[(&str, &str)] = &[
    (
        "a rule is deleted",
        "handle=$(nft -a list chain $T ci_out | sed -n 's/.*@blocked4.*# handle //p')
         nft delete rule $T ci_out handle $handle",
    ),
    (
        "a rule is inserted before ours",
        "nft insert rule $T through_host iifname 'rc-*' accept",
    ),
    (
        "a rule is appended",
        "nft add rule $T ci_to_host tcp dport 22 accept",
    ),
    ("a chain is flushed", "nft flush chain $T to_host"),
    ("every chain is flushed", "nft flush table $T"),
    (
        "a network is taken out of a set",
        "nft delete element $T blocked4 '{ 169.254.0.0/16 }'",
    ),
    (
        "a resolver is added",
        "nft add element $T dns4 '{ 203.0.113.9 }'",
    ),
    (
        "a chain is hooked elsewhere",
        "nft -s list table $T >/run/testbed/table
         sed -i 's/hook input priority filter - 5/hook output priority filter - 5/' /run/testbed/table
         nft delete table $T; nft -f /run/testbed/table",
    ),
    (
        "a chain comes too late",
        "nft -s list table $T >/run/testbed/table
         sed -i 's/hook prerouting priority raw/hook prerouting priority filter/' /run/testbed/table
         nft delete table $T; nft -f /run/testbed/table",
    ),
    ("the table sleeps", "nft \"add table $T { flags dormant; }\""),
    ("the table is deleted", "nft delete table $T"),
];

fn change(lab: &Lab, script: &str) -> Result<()> {
    let script = format!("set -e; T='inet runner_controller'; {script}");
    lab.host().sh(&script).map(drop)
}

fn reload(lab: &Lab) -> Result<()> {
    lab.host()
        .run(&["systemctl", "reload-or-restart", FIREWALL])
        .map(drop)
}

/// What is said of the firewall, once admission is closed for it.
fn closed(status: &Status) -> Option<String> {
    let mut reasons = status.closed.iter();
    reasons.find(|why| why.starts_with("firewall: ")).cloned()
}

fn await_open(lab: &Lab, limit: Duration) -> Result<()> {
    lab.await_status("admission to open again", limit, |status| {
        status.closed.is_empty().then_some(())
    })
}

fn no_container_starts_behind_a_table_that_was_changed(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    // What closes admission is to be the launcher's word, or the check's that is asked for here.
    lab.host().run(&["systemctl", "stop", TIMER])?;
    let outcome = each_change_is_refused(lab);
    lab.host().run(&["systemctl", "start", TIMER])?;
    outcome?;
    lab.await_settled(SOON)?;
    run(lab, "true").map(drop)
}

fn each_change_is_refused(lab: &Lab) -> Result<()> {
    let mut first = true;
    for (what, script) in CHANGES {
        let refused = if std::mem::take(&mut first) {
            a_wanted_start_is_refused
        } else {
            a_start_by_hand_is_refused
        };
        let outcome = change(lab, script).and_then(|()| refused(lab));
        reload(lab)?;
        outcome.with_context(|| (*what).to_owned())?;
        await_open(lab, SOON).with_context(|| format!("after this was undone: {what}"))?;
        // Forgets that a boot failed: it was the wall, and with it every slot starts again.
        lab.api("POST", "/undrain")?;
        lab.await_settled(SOON)?;
    }
    Ok(())
}

/// The daemon wants a container, and learns from its launcher what is wrong.
fn a_wanted_start_is_refused(lab: &Lab) -> Result<()> {
    let before = lab.look()?;
    let pid = leader(lab, &spare(&before)?.machine)?;
    lab.host().run(&["kill", "-KILL", &pid])?;
    ensure_refused(lab, &before, |ended| ended.verdict == "boot_failed")
}

/// Somebody else starts one, when the check has already told the daemon.
fn a_start_by_hand_is_refused(lab: &Lab) -> Result<()> {
    let checked = lab.host().output(&["systemctl", "start", CHECK])?;
    ensure!(!checked.status.success(), "the check found nothing");
    lab.await_status("admission to close", SOON, closed)?;
    let status = lab.look()?;
    let vacant = (1..=4)
        .find(|slot| status.machine(&format!("ci-{slot}")).is_none())
        .context("no slot is vacant")?;
    let unit = format!("runner-ci@{vacant}.service");
    let started = lab.host().output(&["systemctl", "start", &unit])?;
    ensure!(!started.status.success(), "{unit} started");
    let machine = format!("ci-{vacant}");
    ensure_refused(lab, &status, |ended| ended.machine == machine)
}

/// All faces say what is wrong. The end that tells is newer than `before`: other ends of that kind, and
/// in that slot, are shown beside it.
fn ensure_refused(lab: &Lab, before: &Status, is_it: impl Fn(&Ended) -> bool) -> Result<()> {
    // The launcher said so; nobody waited for the timer.
    let reason = lab.await_status("admission to close", SOON, closed)?;
    ensure_says(&reason, &["inet runner_controller", FIREWALL])?;
    let ended = lab.await_status("the refusal's verdict", SOON, |status| {
        let mut recent = status.recent.iter();
        recent
            .find(|ended| is_it(ended) && ended.ended_unix_ms > before.at_unix_ms)
            .cloned()
    })?;
    ensure!(ended.verdict == "boot_failed", "{ended:?}");
    ensure_says(
        ended.exit.as_deref().unwrap_or_default(),
        &["status 82", "firewall"],
    )?;
    let health = lab.api("GET", "/health")?;
    ensure!(health.status == 503, "healthy all the same: {health:?}");
    ensure_says(&health.body, &["firewall: "])?;
    let metrics = lab.api("GET", "/metrics")?.body;
    ensure_says(
        &metrics,
        &[
            "runner_controller_admission_open{} 0\n",
            "runner_controller_component_failing{component=\"firewall\"} 1\n",
        ],
    )?;
    let said = lab.journal(DAEMON, 8);
    ensure_says(&said, &["the firewall is not as it should be"])
}

fn a_wall_that_falls_closes_admission_and_kills_no_job(lab: &mut Lab) -> Result<()> {
    let (id, busy) = start_held(lab, "long")?;
    let waiting = lab.await_status("an idle runner and a spare beside it", SOON, |status| {
        let spares = status.in_phase("spare");
        let waiting = spares.first().map(|runner| (*runner).clone());
        waiting.filter(|_| status.in_phase("idle").len() == 1)
    })?;
    // Jobs go on as before, so that what follows can be seen to the end.
    change(lab, "nft add rule $T ci_to_host tcp dport 22 accept")?;
    // By the timer alone: nothing is started meanwhile.
    let reason = lab.await_status("admission to close", CHECKED, closed)?;
    ensure_says(&reason, &["tcp dport 22 accept"])?;
    ensure!(
        lab.show(CHECK, "Result")? == "exit-code",
        "the check is not seen to fail"
    );
    // The runner that waits takes the next job; who is spare is not registered after it.
    let (second, other) = start_held(lab, "second")?;
    let third = lab.sim().queue(&NewJob::new("third", "ci", "true"))?;
    let status = lab.look()?;
    ensure!(
        closed(&status).is_some()
            && status.in_phase("idle").is_empty()
            && status
                .machine(&waiting.machine)
                .is_some_and(|runner| runner.phase == "spare"),
        "{}",
        status.summary()
    );
    ensure!(lab.sim().job(third)?.status == "queued", "it was taken");
    reload(lab)?;
    await_open(lab, SOON)?;
    lab.sim().await_success(third, SOON)?;
    finish_held(lab, second, &other)?;
    finish_held(lab, id, &busy)?;
    lab.await_settled(SOON).map(drop)
}

fn a_check_that_does_not_come_closes_admission(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    lab.host().run(&["systemctl", "stop", TIMER])?;
    let outcome = lab.await_status("an old report to be noticed", STALE, closed);
    lab.host().run(&["systemctl", "start", TIMER])?;
    ensure_says(&outcome?, &["too long ago", TIMER])?;
    await_open(lab, SOON)?;
    run(lab, "true").map(drop)
}

/// Somebody else's tables, with counters and handles, as they are loaded.
fn others(lab: &Lab) -> Result<Vec<Value>> {
    let text = lab.host().run(&["nft", "--json", "list", "ruleset"])?;
    let ruleset: Value = serde_json::from_str(&text)?;
    let ours = |entry: &Value| {
        let mut kinds = entry.as_object().into_iter().flatten();
        kinds.any(|(kind, it)| {
            it["table"] == "runner_controller"
                || (kind == "table" && it["name"] == "runner_controller")
        })
    };
    let entries = ruleset["nftables"].as_array().context("no ruleset")?;
    Ok(entries
        .iter()
        .filter(|entry| !ours(entry))
        .cloned()
        .collect())
}

fn no_other_table_is_touched(lab: &mut Lab) -> Result<()> {
    // One in our family, one that translates as ours does, one with our name in another family.
    lab.host().sh(
        "nft -f - <<'END'
table inet others {
  set s { type ipv4_addr; flags timeout; elements = { 203.0.113.7 } }
  chain input { type filter hook input priority 300; policy accept; ip saddr @s counter packets 7 bytes 70 drop; }
}
table ip nat {
  chain postrouting { type nat hook postrouting priority 200; policy accept; ip saddr 203.0.113.0/24 masquerade; }
}
table ip6 runner_controller_not {
  chain output { type filter hook output priority 300; policy accept; ip6 daddr ::2 drop; }
}
END",
    )?;
    let outcome = untouched(lab);
    lab.host().sh(
        "nft delete table inet others; nft delete table ip nat; nft delete table ip6 runner_controller_not",
    )?;
    lab.host().run(&["systemctl", "start", FIREWALL])?;
    outcome?;
    await_open(lab, SOON)?;
    lab.await_settled(SOON)?;
    run(lab, "true").map(drop)
}

fn untouched(lab: &Lab) -> Result<()> {
    let before = others(lab)?;
    ensure!(before.len() > 8, "the tables are not there: {before:?}");
    for verb in ["reload", "restart", "stop", "start"] {
        lab.host().run(&["systemctl", verb, FIREWALL])?;
        let after = others(lab)?;
        ensure!(after == before, "{verb} changed others' tables: {after:?}");
    }
    for unit in [CHECK, DAEMON] {
        lab.host().run(&["systemctl", "restart", unit])?;
    }
    run(lab, "true")?;
    ensure!(others(lab)? == before, "others' tables have changed");
    Ok(())
}
