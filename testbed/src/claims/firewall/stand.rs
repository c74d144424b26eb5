//! The wall stands while other programs change the host's rules: a job probes it all the time.

use anyhow::{Context, Result, ensure};

use super::super::common::{SOON, await_busy, await_open, finish_held, in_container, start_held};
use super::super::isolation::with_host_answers;
use crate::lab::{FIREWALL, Lab};
use crate::net::{GITHUB, INTERNET, NEIGHBOUR, UPLINK};
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

const PROBE: &str = include_str!("probe.py");
const ECHO: &str = "testbed-echo.service";
/// Longest time in milliseconds in which an allowed connection may not work.
const GAP_MAX_MS: u64 = 5_000;

/// Changes of the host's rules by other programs and operators, each as a script on the host.
const EVENTS: &[(&str, &str)] = &[
    ("another program flushes the ruleset", "nft flush ruleset"),
    (
        "another program deletes the table",
        "! nft delete table inet runner_controller 2>/dev/null",
    ),
    (
        "nftables.service restarts",
        "systemctl restart nftables.service; systemctl stop nftables.service",
    ),
    (
        "firewalld reloads",
        "nft -f - <<'END'
table inet firewalld
delete table inet firewalld
table inet firewalld {
  chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept; }
}
END
nft delete table inet firewalld",
    ),
    (
        "docker reloads",
        "nft -f - <<'END'
table ip filter {
  chain DOCKER { }
  chain FORWARD { type filter hook forward priority filter; policy accept; jump DOCKER; }
}
flush table ip filter
delete table ip filter
END",
    ),
    (
        "the owner's nft is killed",
        "kill -KILL $(pgrep --full '^nft --interactive')",
    ),
    (
        "the owner is killed",
        "systemctl kill --signal=KILL runner-controller-firewall.service",
    ),
    (
        "the unit reloads",
        "systemctl reload runner-controller-firewall.service",
    ),
    (
        "the unit restarts",
        "systemctl restart runner-controller-firewall.service",
    ),
    (
        "the unit stops and starts",
        "systemctl stop runner-controller-firewall.service; sleep 0.5
         systemctl start runner-controller-firewall.service",
    ),
    (
        "the unit is removed, as by a deploy without the module",
        "systemctl stop runner-controller-firewall.service
         cd /etc/systemd/system; mv runner-controller-firewall.service /run/testbed/
         systemctl daemon-reload; sleep 0.5
         mv /run/testbed/runner-controller-firewall.service .
         systemctl daemon-reload; systemctl start runner-controller-firewall.service",
    ),
];

/// Runs a claim while a service in the internet echoes what it is sent.
fn with_echo(lab: &Lab, claim: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    let host = lab.host();
    host.output(&["systemctl", "stop", ECHO])?;
    host.run(&[
        "systemd-run",
        "--quiet",
        "--collect",
        &format!("--unit={ECHO}"),
        &format!("--property=NetworkNamespacePath=/run/netns/{INTERNET}"),
        "socat",
        &format!("TCP-LISTEN:7,bind={GITHUB},fork,reuseaddr"),
        "EXEC:cat",
    ])?;
    let outcome = claim(lab);
    lab.host().run(&["systemctl", "stop", ECHO])?;
    outcome
}

pub(super) fn the_firewall_stands_while_other_programs_change_rules(lab: &mut Lab) -> Result<()> {
    with_host_answers(lab, |lab| {
        with_echo(lab, |lab| {
            let log = probed(lab, |lab| {
                for (what, script) in EVENTS {
                    lab.host()
                        .sh(&format!("set -e; {script}"))
                        .with_context(|| (*what).to_owned())?;
                    await_owner(lab).with_context(|| format!("after {what}"))?;
                }
                Ok(())
            })?;
            ensure_closed_and_connected(&log)?;
            control(lab)
        })
    })?;
    await_open(lab, SOON)?;
    lab.await_settled(SOON).map(drop)
}

/// Without the table, the same probe reaches what it must not reach.
fn control(lab: &Lab) -> Result<()> {
    let log = probed(lab, |lab| {
        lab.host().sh(&format!(
            "systemctl stop {FIREWALL}; nft flush ruleset; sleep 1"
        ))?;
        lab.host().run(&["systemctl", "start", FIREWALL]).map(drop)
    })?;
    let reached = log
        .lines()
        .filter(|line| line.starts_with("forbidden ") && !line.contains(" opened 0 "))
        .count();
    ensure!(
        reached >= 3,
        "without the table the probe reaches {reached} addresses: {log}"
    );
    Ok(())
}

/// Waits until the table has an owner and admission is open.
fn await_owner(lab: &Lab) -> Result<()> {
    wait_until("the table to have an owner", SOON, || {
        let listed = lab
            .host()
            .output(&["nft", "list", "table", "inet", "runner_controller"])?;
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        Ok(if text.contains("\tflags owner,persist\n") {
            Seen::Done(())
        } else {
            Seen::NotYet(text.lines().take(3).collect())
        })
    })?;
    await_open(lab, SOON)
}

/// Runs a job that probes while `act` runs, beside a neighbour that listens; returns the job's log.
fn probed(lab: &Lab, act: impl FnOnce(&Lab) -> Result<()>) -> Result<String> {
    let (other, neighbour) = start_held(lab, "neighbour")?;
    in_container(
        lab,
        &neighbour.machine(),
        &["sh", "-c", "nc -lk 8000 >/dev/null 2>&1 </dev/null &"],
    )?;
    let address = in_container(lab, &neighbour.machine(), &["hostname", "-I"])?;
    let address = address.trim();
    let gateway = "$(ip route show default | cut -d' ' -f3)";
    let script = format!(
        "cat >probe.py <<'END'\n{PROBE}\nEND\n\
         python3 probe.py {gateway}:80 {UPLINK}:80 192.168.77.1:80 {NEIGHBOUR}:80 {address}:8000"
    );
    let id = lab.sim().queue(&pool_job("probe", "ci", &script))?;
    let busy = await_busy(lab, id)?;
    let probing = [
        "sh",
        "-c",
        "until [ -e /tmp/probing ]; do sleep 0.05; done; sleep 0.5",
    ];
    in_container(lab, &busy.machine(), &probing)?;
    let outcome = act(lab);
    let job = finish_held(lab, id, &busy)?;
    finish_held(lab, other, &neighbour)?;
    outcome.with_context(|| job.facts.log_tail.clone())?;
    Ok(job.facts.log_tail)
}

fn ensure_closed_and_connected(log: &str) -> Result<()> {
    let forbidden = log.lines().filter(|line| line.starts_with("forbidden "));
    ensure!(forbidden.clone().count() == 5, "{log}");
    for line in forbidden {
        ensure!(line.contains(" opened 0 of "), "{line}: {log}");
    }
    let mut gaps = 0;
    for line in log.lines() {
        let Some(gap) = line
            .strip_prefix("longest gap ")
            .and_then(|rest| rest.strip_suffix(" ms"))
        else {
            continue;
        };
        let ms: u64 = gap
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .parse()
            .context("a gap in milliseconds")?;
        ensure!(ms <= GAP_MAX_MS, "{line}: {log}");
        gaps += 1;
    }
    ensure!(gaps == 2, "{log}");
    crate::bed::note(&log.lines().rev().take(8).collect::<Vec<_>>().join("; "));
    Ok(())
}
