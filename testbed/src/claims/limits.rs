//! Limits are systemd's, and where they can be read. That they bite is the kernel's part: a
//! machine whose controllers are in use elsewhere has none of them in the test host.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Claim;
use super::claims;
use super::common::{SOON, ensure_says, in_container, leader, run, spare};
use crate::bed::note;
use crate::lab::{Lab, RUN_DIR};
use crate::status::Status;

pub(super) const CLAIMS: &[Claim] = claims![Small:
    limits_are_properties_of_the_unit,
    the_record_of_an_end_has_what_the_kernel_counts,
    a_missing_firewall_starts_nothing_and_status_says_so,
];

fn limits_are_properties_of_the_unit(lab: &mut Lab) -> Result<()> {
    let status = lab.await_settled(SOON)?;
    for runner in status.runners() {
        for (property, value) in [
            ("MemoryMax", "1073741824"),
            ("MemorySwapMax", "0"),
            ("TasksMax", "2048"),
            ("Delegate", "yes"),
            ("KillMode", "mixed"),
            ("Slice", "runners-ci.slice"),
            ("OOMPolicy", "continue"),
            ("Restart", "no"),
        ] {
            let found = lab.show(&runner.unit, property)?;
            ensure!(found == value, "{property} of {} is {found}", runner.unit);
        }
        // Neither a filter nor a lock of the unit's reaches the job: compilers and sanitizers run.
        let inside = in_container(lab, &runner.machine, &["cat", "/proc/1/status"])?;
        ensure_says(&inside, &["NoNewPrivs:\t0"])?;
    }
    Ok(())
}

fn the_record_of_an_end_has_what_the_kernel_counts(lab: &mut Lab) -> Result<()> {
    run(lab, "true")?;
    let status = lab.await_settled(SOON)?;
    let ended = status.recent.first().context("nothing has ended")?;
    let records = lab.host().sh(&format!(
        "cat $(ls -t {RUN_DIR}/lives/{}/*.end.json | head -n 1)",
        ended.machine
    ))?;
    let record: Value = serde_json::from_str(&records)?;
    for key in [
        "service_result",
        "exit",
        "memory_peak_bytes",
        "oom_kills",
        "at_ms",
    ] {
        ensure!(record.get(key).is_some(), "no {key} in {records}");
    }
    let controllers = lab
        .host()
        .run(&["cat", "/sys/fs/cgroup/cgroup.controllers"])?;
    if controllers.split_whitespace().any(|name| name == "memory") {
        ensure!(record["memory_peak_bytes"].is_u64(), "{records}");
    } else {
        note(
            "no memory controller here: limits and oom kills are checked as far as they are wired",
        );
    }
    Ok(())
}

/// A pool that wants a container and may not have one.
fn boot_refused(status: &Status) -> Option<String> {
    Some(status.backoff("boot")?.reason.clone())
}

fn a_missing_firewall_starts_nothing_and_status_says_so(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    lab.host()
        .run(&["nft", "delete", "table", "inet", "runner_controller"])?;
    let outcome = without_firewall(lab);
    lab.host()
        .run(&["systemctl", "restart", "runner-controller-firewall.service"])?;
    outcome?;
    // Not at once, but without anybody's word.
    lab.await_settled(SOON)?;
    run(lab, "true").map(drop)
}

fn without_firewall(lab: &Lab) -> Result<()> {
    // A job would reach GitHub no more than anything else: that table translates addresses, too.
    let spare = spare(&lab.look()?)?;
    lab.host()
        .run(&["kill", "-KILL", &leader(lab, &spare.machine)?])?;
    let reason = lab.await_status("a boot that is refused", SOON, boot_refused)?;
    ensure_says(&reason, &["boot_failed", "82"])?;
    let status = lab.look()?;
    let refused = status
        .recent
        .iter()
        .find(|ended| ended.verdict == "boot_failed")
        .context("no boot has failed")?;
    ensure_says(
        refused.exit.as_deref().unwrap_or_default(),
        &[
            "status 82",
            "firewall",
            "runner-controller-firewall.service",
        ],
    )
}
