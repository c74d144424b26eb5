//! A switch of a NixOS host, in the order of its `switch-to-configuration`, while jobs run and begin.

use anyhow::{Result, ensure};
use github_sim::JobSpec;

use super::common::{SOON, await_busy, await_no_strangers, ensure_says, finish_held, start_held};
use super::fixture::{SMALL, one, small};
use super::suite::{Suite, suite};
use crate::config::Config;
use crate::lab::{CONFIG, DAEMON, FIREWALL, Lab};
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![SMALL;
    a_switch_that_changes_the_table_fails_no_unit,
];

const SWITCH: &str = include_str!("switch/switch.sh");
/// Directory of the configurations. Units name their own one, as they name one in the store on NixOS.
const GENERATIONS: &str = "/etc/runner-controller/generations";
/// Message of systemd when a unit enters the state `failed` (`SD_MESSAGE_UNIT_FAILURE_RESULT` in sd-messages.h).
const FAILURE: &str = "MESSAGE_ID=d9b373ed55a64feb8242e02dbe79a49c";
/// Memory of the pool `ci` after the switch.
const MEMORY: &str = "900 MiB";
/// Address that only the changed table has.
const ADDRESS: &str = "10.0.0.5";
/// Units by which earlier versions checked the table.
const CHECK: &str = "runner-controller-firewall-check";

fn a_switch_that_changes_the_table_fails_no_unit(lab: &mut Lab) -> Result<()> {
    let outcome = fails_no_unit(lab).and_then(|()| control(lab));
    lab.host().sh(&format!(
        "systemctl stop {CHECK}.timer 2>/dev/null || true; rm -f /etc/systemd/system/{CHECK}.*"
    ))?;
    lab.install(&small(lab.sim().api_url()))?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    lab.host().run(&["systemctl", "reset-failed"])?;
    outcome?;
    // The units of living runners still name the configurations, and so do their sweeps.
    lab.host()
        .run(&["runner-controller", "drain", "--wait", "--timeout", "30s"])?;
    lab.host().run(&["runner-controller", "undrain"])?;
    lab.await_settled(SOON)?;
    let of_next = "/etc/systemd/system/runner-next@.service /etc/systemd/system/runners-next.slice";
    lab.host()
        .sh(&format!(
            "rm -rf {GENERATIONS} {of_next}; systemctl daemon-reload"
        ))
        .map(drop)
}

/// Result of a switch.
struct Switched {
    status: Option<i32>,
    said: String,
    /// Failures of units at any moment of it, besides ends of replaced runners.
    failures: Vec<String>,
}

/// Switches the host to a configuration.
fn switch(lab: &Lab, name: &str, config: &Config) -> Result<Switched> {
    let host = lab.host();
    let mut config = config.clone();
    config.layer_dir = host.layer_dir();
    let path = format!("{GENERATIONS}/{name}.toml");
    host.run(&["mkdir", "-p", GENERATIONS])?;
    host.write(&path, config.render().as_bytes(), 0o644)?;
    let cursor = host
        .sh("journalctl --sync; journalctl --lines=0 --show-cursor | sed -n 's/^-- cursor: //p'")?;
    let output = host.output(&["sh", "-c", SWITCH, "switch", &path])?;
    let after = format!("--after-cursor={}", cursor.trim());
    host.run(&["journalctl", "--sync"])?;
    let failures = host.output(&["journalctl", "--quiet", "--output=cat", &after, FAILURE])?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Switched {
        status: output.status.code(),
        said: text(&output.stdout) + &text(&output.stderr),
        failures: text(&failures.stdout)
            .lines()
            .filter(|line| !is_replacement(line))
            .map(str::to_owned)
            .collect(),
    })
}

/// Returns true for the end of a runner that the daemon replaces: it kills a spare with an old configuration. Such a
/// unit is unloaded at once (`CollectMode=`), so no list of failed units has it.
fn is_replacement(failure: &str) -> bool {
    let unit = failure.strip_suffix(": Failed with result 'signal'.");
    unit.is_some_and(|unit| unit.starts_with("runner-") && unit.contains('@'))
}

/// Switches the host, and fails unless the switch restarted both services and no unit failed at any moment.
fn switch_well(lab: &Lab, name: &str, config: &Config) -> Result<()> {
    let switched = switch(lab, name, config)?;
    ensure!(
        switched.status == Some(0) && switched.failures.is_empty(),
        "the switch ended with {:?}: {} {:?}",
        switched.status,
        switched.said,
        switched.failures
    );
    ensure_says(&switched.said, &[DAEMON, FIREWALL])
}

/// Returns the configuration after the switch: another table and limit of the pool `ci`, and another second pool.
fn changed(lab: &Lab) -> Config {
    let mut config = small(lab.sim().api_url());
    config.pools.push(one("next", 12));
    config.with("ci", |pool| {
        pool.allow = vec![format!("{ADDRESS}:443")];
        pool.memory = MEMORY.into();
    })
}

fn quick(count: usize) -> Vec<JobSpec> {
    (0..count)
        .map(|number| pool_job(&format!("quick-{number}"), "ci", "true"))
        .collect()
}

fn fails_no_unit(lab: &Lab) -> Result<()> {
    let mut before = small(lab.sim().api_url());
    before.pools.push(one("gone", 8));
    switch_well(lab, "before", &before)?;
    lab.await_settled(SOON)?;
    let (long, busy) = start_held(lab, "long")?;
    let orphan = lab.sim().queue(&pool_job(
        "orphan",
        "gone",
        "until [ -e /tmp/go ]; do sleep 0.05; done",
    ))?;
    let removed = await_busy(lab, orphan)?;
    let unit = format!("runner-{}.service", busy.machine().replace('-', "@"));
    let limit = lab.show(&unit, "MemoryMax")?;

    // Runners end and start during the switch.
    let queued = lab.sim().queue_all(&quick(8))?;
    switch_well(lab, "changed", &changed(lab))?;
    for id in queued {
        lab.sim().await_success(id, SOON)?;
    }

    let table = || {
        lab.host()
            .run(&["nft", "list", "table", "inet", "runner_controller"])
    };
    ensure_says(&table()?, &[ADDRESS, "jump next_out", "jump gone_out"])?;
    ensure!(
        lab.show(&unit, "MemoryMax")? == limit,
        "the busy runner has another limit"
    );
    finish_held(lab, long, &busy)?;
    finish_held(lab, orphan, &removed)?;
    lab.await_settled(SOON)?;
    await_no_strangers(lab)?;
    await_pool_gone(lab, "gone")?;
    switch_well(lab, "after", &small(lab.sim().api_url()))
}

/// Waits until no unit and no link of a removed pool is left.
fn await_pool_gone(lab: &Lab, pool: &str) -> Result<()> {
    let list = format!(
        "systemctl list-units --all --plain --no-legend 'runner-{pool}@*'; \
         ls /sys/class/net | grep '^rc-{pool}-' || true"
    );
    wait_until("the removed pool to be gone", SOON, || {
        let left = lab.host().sh(&list)?;
        Ok(if left.is_empty() {
            Seen::Done(())
        } else {
            Seen::NotYet(left)
        })
    })
}

/// A switch with the timer of earlier versions fails a unit: `daemon-reload` starts the check at once, before
/// the firewall has the new table.
fn control(lab: &Lab) -> Result<()> {
    let host = lab.host();
    let check = format!(
        "[Unit]\nAfter={FIREWALL}\nStartLimitIntervalSec=0\n\
         [Service]\nType=oneshot\n\
         ExecStart=/usr/local/bin/runner-controller --config {CONFIG} check-firewall\n"
    );
    let timer = format!(
        "[Unit]\nAfter={FIREWALL}\n[Timer]\nOnActiveSec=0\nOnUnitInactiveSec=15s\nAccuracySec=1s\n"
    );
    let systemd = "/etc/systemd/system";
    host.write(
        &format!("{systemd}/{CHECK}.service"),
        check.as_bytes(),
        0o644,
    )?;
    host.write(&format!("{systemd}/{CHECK}.timer"), timer.as_bytes(), 0o644)?;
    switch_well(lab, "checked", &small(lab.sim().api_url()))?;
    host.run(&["systemctl", "start", &format!("{CHECK}.timer")])?;
    wait_until("the first check", SOON, || {
        let result = lab.show(
            &format!("{CHECK}.service"),
            "ExecMainExitTimestampMonotonic",
        )?;
        Ok(if result == "0" {
            Seen::NotYet(result)
        } else {
            Seen::Done(())
        })
    })?;
    let switched = switch(lab, "refused", &changed(lab))?;
    ensure!(
        switched.status == Some(4) && switched.failures.iter().any(|line| line.contains(CHECK)),
        "with a timer the switch ended with {:?}: {} {:?}",
        switched.status,
        switched.said,
        switched.failures
    );
    Ok(())
}
