//! The wall around the containers: it stands while other programs change the host's rules, it is
//! checked whole before each start and while containers run, and no other table is touched.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use github_sim::JobState;
use serde_json::Value;
use status::{PhaseKind, Status, Verdict, VerdictRecord};

use super::common::{SOON, await_busy, await_open, ensure_says, finish_held, run, start_held};
use super::fixture::{SMALL, one, small};
use super::suite::{Suite, suite};
use crate::lab::{DAEMON, FIREWALL, Lab};
use crate::net::GITHUB;
use crate::readings::summary;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

mod stand;

use stand::the_firewall_stands_while_other_programs_change_rules;

pub(super) const SUITE: Suite = suite![SMALL;
    another_program_cannot_change_the_table,
    no_container_starts_behind_a_table_that_was_changed,
    a_stopped_firewall_closes_admission_and_kills_no_job,
    a_table_that_is_gone_is_loaded_again_and_told,
    an_owner_that_hangs_closes_admission,
    a_job_of_a_removed_pool_keeps_its_network,
    the_firewall_stands_while_other_programs_change_rules,
    no_other_table_is_touched,
    a_host_that_forwards_no_packets_says_so,
    a_network_manager_leaves_the_links_alone,
];

/// Timeout for a check of the owner, which runs every 15 s.
const CHECKED: Duration = Duration::from_secs(45);
/// Timeout for a report to be too old, which is after a minute.
const STALE: Duration = Duration::from_secs(100);

/// Changes of the table that a check has to notice: name and script.
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
        "nft insert rule $T ci_out ip daddr 203.0.113.9 udp dport 53 accept",
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
         sed -i 's/hook prerouting priority -500/hook prerouting priority filter/' /run/testbed/table
         nft delete table $T; nft -f /run/testbed/table",
    ),
    ("the table is deleted", "nft delete table $T"),
];

fn change(lab: &Lab, script: &str) -> Result<()> {
    let script = format!("set -e; T='inet runner_controller'; {script}");
    lab.host().sh(&script).map(drop)
}

/// Returns the reason why the firewall closes admission, if it does.
fn closed(status: &Status) -> Option<String> {
    let mut reasons = status.closed.iter();
    reasons.find(|why| why.starts_with("firewall: ")).cloned()
}

/// Each change is refused by the kernel while the table has an owner, and changes nothing.
fn another_program_cannot_change_the_table(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let list = ["nft", "-s", "list", "table", "inet", "runner_controller"];
    let before = lab.host().run(&list)?;
    for (what, script) in CHANGES {
        let outcome = change(lab, script);
        ensure!(outcome.is_err(), "{what}: the kernel took it");
        ensure!(
            lab.host().run(&list)? == before,
            "{what}: the table differs"
        );
    }
    lab.host().run(&["nft", "flush", "ruleset"])?;
    ensure!(
        lab.host().run(&list)? == before,
        "a flush removed the table"
    );
    let status = lab.look()?;
    ensure!(closed(&status).is_none(), "{}", summary(&status));
    run(lab, "true").map(drop)
}

/// Keeps the firewall's unit from starting: the unit of every slot wants it.
const HOLD: &str = "/run/systemd/system/runner-controller-firewall.service.d/50-hold.conf";

/// Stops the owner, and keeps it stopped until [`start_owner`].
fn stop_owner(lab: &Lab) -> Result<()> {
    let text = "[Unit]\nConditionPathExists=/run/testbed/no-such-file\n";
    lab.host().write(HOLD, text.as_bytes(), 0o644)?;
    lab.host().run(&["systemctl", "daemon-reload"])?;
    lab.host().run(&["systemctl", "stop", FIREWALL]).map(drop)
}

fn start_owner(lab: &Lab) -> Result<()> {
    lab.host().run(&["rm", "-f", HOLD])?;
    lab.host().run(&["systemctl", "daemon-reload"])?;
    lab.host().run(&["systemctl", "start", FIREWALL]).map(drop)
}

fn no_container_starts_behind_a_table_that_was_changed(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let outcome = each_change_is_refused(lab);
    start_owner(lab)?;
    outcome?;
    lab.await_settled(SOON)?;
    run(lab, "true").map(drop)
}

/// Changes the table while it does not have an owner. A table without an owner is refused as well.
fn each_change_is_refused(lab: &Lab) -> Result<()> {
    let changes = [("the owner is stopped", "true")];
    for (what, script) in changes.iter().chain(CHANGES) {
        stop_owner(lab)?;
        let outcome = change(lab, script).and_then(|()| a_start_by_hand_is_refused(lab));
        start_owner(lab)?;
        outcome.with_context(|| (*what).to_owned())?;
        await_open(lab, SOON).with_context(|| format!("after this was undone: {what}"))?;
        // An undrain resets the backoff of the failed boot.
        lab.api("POST", "/undrain")?;
        lab.await_settled(SOON)?;
    }
    Ok(())
}

/// An operator starts a container while the check has closed admission.
fn a_start_by_hand_is_refused(lab: &Lab) -> Result<()> {
    let checked = lab
        .host()
        .output(&[crate::binaries::CONTROLLER, "check-firewall"])?;
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
    ensure_refused(lab, &status, |ended| ended.slot.to_string() == machine)
}

/// Checks that status, health, metrics and journal name the reason. The runner's end must be
/// newer than `before`, because older ends of the same kind are shown beside it.
fn ensure_refused(
    lab: &Lab,
    before: &Status,
    is_it: impl Fn(&VerdictRecord) -> bool,
) -> Result<()> {
    // The launcher's report arrives at once.
    let reason = lab.await_status("admission to close", SOON, closed)?;
    ensure_says(&reason, &["inet runner_controller", FIREWALL])?;
    let ended = lab.await_status("the refusal's verdict", SOON, |status| {
        let mut recent = status.recent.iter();
        recent
            .find(|ended| is_it(ended) && ended.ended_unix_ms > before.at_unix_ms)
            .cloned()
    })?;
    ensure!(ended.verdict == Verdict::BootFailed, "{ended:?}");
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
    ensure_says(&said, &["closing admission because of the firewall"])
}

fn a_stopped_firewall_closes_admission_and_kills_no_job(lab: &mut Lab) -> Result<()> {
    let (id, busy) = start_held(lab, "long")?;
    let waiting = lab.await_status("an idle runner and a spare beside it", SOON, |status| {
        let spares = status.in_phase(PhaseKind::Spare);
        let waiting = spares.first().map(|runner| (*runner).clone());
        waiting.filter(|_| status.in_phase(PhaseKind::Idle).len() == 1)
    })?;
    stop_owner(lab)?;
    let reason = lab.await_status("admission to close", SOON, closed)?;
    ensure_says(&reason, &["is stopped", FIREWALL])?;
    // The idle runner takes the next job. The spare is not registered after it.
    let (second, other) = start_held(lab, "second")?;
    let third = lab.sim().queue(&pool_job("third", "ci", "true"))?;
    let status = lab.look()?;
    ensure!(
        closed(&status).is_some()
            && status.in_phase(PhaseKind::Idle).is_empty()
            && status
                .machine(&waiting.machine())
                .is_some_and(|runner| runner.phase == PhaseKind::Spare),
        "{}",
        summary(&status)
    );
    ensure!(
        lab.sim().job(third)?.status == JobState::Queued,
        "it was taken"
    );
    start_owner(lab)?;
    await_open(lab, SOON)?;
    lab.sim().await_success(third, SOON)?;
    finish_held(lab, second, &other)?;
    finish_held(lab, id, &busy)?;
    lab.await_settled(SOON).map(drop)
}

/// A table that went away while it did not have an owner is loaded again by the next owner, which says so.
fn a_table_that_is_gone_is_loaded_again_and_told(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let report = || -> Result<Value> {
        let file = format!("{}/firewall/report.json", crate::lab::RUN_DIR);
        Ok(serde_json::from_str(&lab.host().run(&["cat", &file])?)?)
    };
    let before = report()?["restored"].as_u64().context("a count")?;
    lab.host().sh(&format!(
        "systemctl stop {FIREWALL}; nft flush ruleset; systemctl start {FIREWALL}"
    ))?;
    let after = report()?;
    ensure!(
        after["restored"].as_u64() == Some(before + 1) && after["wrong"].is_null(),
        "{after}"
    );
    ensure_says(&lab.journal(FIREWALL, 20), &["was gone", "loaded again"])?;
    await_open(lab, SOON)?;
    run(lab, "true").map(drop)
}

/// A report that the daemon gets too rarely closes admission.
fn an_owner_that_hangs_closes_admission(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let signal = |signal: &str| {
        let signal = format!("--signal={signal}");
        lab.host()
            .run(&["systemctl", "kill", "--kill-whom=main", &signal, FIREWALL])
            .map(drop)
    };
    signal("STOP")?;
    let outcome = lab.await_status("an old report to be noticed", STALE, closed);
    signal("CONT")?;
    ensure_says(&outcome?, &["too long ago", FIREWALL])?;
    await_open(lab, CHECKED)?;
    run(lab, "true").map(drop)
}

/// The chains of a removed pool stay while its containers run.
fn a_job_of_a_removed_pool_keeps_its_network(lab: &mut Lab) -> Result<()> {
    let mut config = small(lab.sim().api_url());
    config.pools.push(one("gone", 8));
    lab.install(&config)?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    let fetch = format!(
        "until [ -e /tmp/go ]; do exec 3<>/dev/tcp/{GITHUB}/80; exec 3>&-; sleep 0.05; done; echo served"
    );
    let id = lab.sim().queue(&pool_job("long", "gone", &fetch))?;
    let busy = await_busy(lab, id)?;
    lab.install(&small(lab.sim().api_url()))?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    let table = || {
        lab.host()
            .run(&["nft", "list", "table", "inet", "runner_controller"])
    };
    ensure_says(&table()?, &["jump gone_out"])?;
    await_open(lab, SOON)?;
    let job = finish_held(lab, id, &busy)?;
    ensure_says(&job.facts.log_tail, &["served"])?;
    wait_until("the rules of the removed pool to go", CHECKED, || {
        Ok(if table()?.contains("gone_out") {
            Seen::NotYet("they are loaded".into())
        } else {
            Seen::Done(())
        })
    })?;
    lab.await_settled(SOON).map(drop)
}

/// Returns the tables of other programs as they are loaded, with counters and handles.
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
    // A table of the same family, one that masquerades as ours does, and one with our name in
    // another family.
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
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    run(lab, "true")?;
    ensure!(others(lab)? == before, "others' tables have changed");
    Ok(())
}

/// Changes after which the host does not forward the packets of runners: the change, a word of the reason,
/// and the remedy.
const OBSTACLES: &[(&str, &str, &str)] = &[
    (
        "sysctl -q net.ipv4.ip_forward=0",
        "net.ipv4.ip_forward is 0",
        "sysctl -q net.ipv4.ip_forward=1",
    ),
    (
        "sysctl -q net.ipv4.conf.default.forwarding=0",
        "net.ipv4.conf.default.forwarding is 0",
        "sysctl -q net.ipv4.conf.default.forwarding=1",
    ),
    (
        "nft -f - <<'END'
table ip filter {
  chain DOCKER-USER { }
  chain FORWARD {
    type filter hook forward priority filter; policy drop;
    jump DOCKER-USER
    oifname docker0 ct state established,related accept
    iifname docker0 accept
  }
}
END",
        "`ip filter FORWARD` drops the packets of runners by its policy",
        "nft add rule ip filter DOCKER-USER iifname 'rc-*' accept
         nft add rule ip filter DOCKER-USER oifname 'rc-*' ct state established,related accept",
    ),
];

/// Admission is closed with the reason, until the remedy is applied. Jobs and runners stay.
fn a_host_that_forwards_no_packets_says_so(lab: &mut Lab) -> Result<()> {
    for (change, reason, remedy) in OBSTACLES {
        lab.await_settled(SOON)?;
        lab.host().sh(change)?;
        let outcome = is_told(lab, reason);
        lab.host().sh(remedy)?;
        outcome.with_context(|| (*change).to_owned())?;
        await_open(lab, CHECKED).with_context(|| (*remedy).to_owned())?;
        run(lab, "true")?;
    }
    lab.host()
        .run(&["nft", "delete", "table", "ip", "filter"])?;
    lab.await_settled(SOON).map(drop)
}

fn is_told(lab: &Lab, reason: &str) -> Result<()> {
    let why = lab.await_status("admission to close", CHECKED, closed)?;
    ensure_says(&why, &[reason])?;
    for command in [&["check-firewall"][..], &["check-config", "--host"]] {
        let mut argv = vec![crate::binaries::CONTROLLER];
        argv.extend(command);
        let output = lab.host().output(&argv)?;
        ensure!(!output.status.success(), "{command:?} finds nothing");
        ensure_says(&String::from_utf8_lossy(&output.stderr), &[reason])?;
    }
    let health = lab.api("GET", "/health")?;
    ensure!(health.status == 503, "healthy all the same: {health:?}");
    Ok(())
}

/// File of an operator for all links, as distributions and installers write it.
const CATCH_ALL: &str = "/etc/systemd/network/10-all.network";
/// Our file, which comes first.
const UNMANAGED: &str = "/etc/systemd/network/00-runner-controller.network";
const NETWORKD: &str = "systemd-networkd.service";

/// With our file, systemd-networkd takes no link. Without it, runners lose their addresses and are replaced.
fn a_network_manager_leaves_the_links_alone(lab: &mut Lab) -> Result<()> {
    let host = lab.host();
    // The links of the test host's own networks are left to it.
    let text = "[Match]\nName=rc-* eth*\n\n[Network]\nDHCP=no\nLinkLocalAddressing=no\n";
    host.write(CATCH_ALL, text.as_bytes(), 0o644)?;
    let outcome = with_networkd(lab);
    let host = lab.host();
    host.sh(&format!(
        "[ ! -e {UNMANAGED}.away ] || mv {UNMANAGED}.away {UNMANAGED}; rm -f {CATCH_ALL}; \
         systemctl stop {NETWORKD} systemd-networkd.socket"
    ))?;
    outcome?;
    lab.api("POST", "/undrain")?;
    lab.await_settled(SOON)?;
    run(lab, "true").map(drop)
}

/// Returns the number of runners that ended because their link lost its address.
fn lost(status: &Status) -> u64 {
    let verdicts = status.pools.iter().map(|pool| &pool.verdicts);
    verdicts
        .filter_map(|all| all.get(&Verdict::AddressLost))
        .sum()
}

fn with_networkd(lab: &Lab) -> Result<()> {
    let before = lab.await_settled(SOON)?;
    let runners = |status: &Status| -> Vec<_> {
        let runners = status.pools.iter().flat_map(|pool| &pool.runners);
        runners.map(|runner| runner.invocation.clone()).collect()
    };
    lab.host().run(&["systemctl", "start", NETWORKD])?;
    run(lab, "true")?;
    let after = lab.await_settled(SOON)?;
    let links = lab
        .host()
        .run(&["networkctl", "list", "--no-legend", "rc-*"])?;
    ensure!(
        links.lines().count() >= 2 && links.lines().all(|line| line.contains("unmanaged")),
        "{links}"
    );
    ensure!(lost(&after) == 0, "{}", summary(&after));
    ensure!(runners(&after) != runners(&before), "no runner ran the job");

    lab.host().sh(&format!(
        "mv {UNMANAGED} {UNMANAGED}.away; networkctl reload"
    ))?;
    lab.await_status("a runner to lose its address", SOON, |status| {
        (lost(status) > 0).then_some(())
    })?;
    let journal = lab.journal(DAEMON, 40);
    ensure_says(&journal, &["address_lost"])
}
