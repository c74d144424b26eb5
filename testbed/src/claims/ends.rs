//! Ends of runners: root's sweep runs whole, and under the rules that the runner started with.

use anyhow::{Context, Result, ensure};

use super::common::{SOON, spare};
use super::fixture::SMALL;
use super::suite::{Suite, suite};
use crate::lab::{Lab, RUN_DIR};
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![SMALL;
    a_kill_during_a_slow_sweep_leaves_the_sweep_alone,
];

/// File for which a slow sweep waits.
const GATE: &str = "/run/testbed-sweep";
const DROP_IN: &str = "/run/systemd/system/runner-ci@.service.d/slow-sweep.conf";

/// Lets sweeps wait for [`GATE`].
fn slow_sweeps(lab: &Lab) -> Result<()> {
    let text = format!(
        "[Service]\nExecStopPost=\nExecStopPost=/bin/sh -c 'until [ -e {GATE} ]; do sleep 0.05; done; \
         exec /usr/local/bin/runner-controller sweep ci %i'\n"
    );
    lab.host().run(&["rm", "-f", GATE])?;
    lab.host().write(DROP_IN, text.as_bytes(), 0o644)?;
    lab.host().run(&["systemctl", "daemon-reload"]).map(drop)
}

/// Lets sweeps go on.
fn quick_sweeps(lab: &Lab) -> Result<()> {
    lab.host().write(GATE, b"", 0o644)?;
    lab.host().run(&["rm", "-f", DROP_IN])?;
    lab.host().run(&["systemctl", "daemon-reload"]).map(drop)
}

fn a_kill_during_a_slow_sweep_leaves_the_sweep_alone(lab: &mut Lab) -> Result<()> {
    let spare = spare(&lab.await_settled(SOON)?)?;
    slow_sweeps(lab)?;
    let outcome = kill_while_it_sweeps(lab, &spare.unit);
    quick_sweeps(lab)?;
    outcome?;
    lab.await_nothing_left(SOON)?;
    let invocation = spare.invocation.context("a spare was started")?;
    let record = format!("{RUN_DIR}/lives/{}/{invocation}.end.json", spare.machine);
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
