//! Limits are systemd's, and where they can be read. That they bite is the kernel's part: a
//! machine whose controllers are in use elsewhere has none of them in the test host.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Claim;
use super::claims;
use super::common::{SOON, ensure_says, in_container, run};
use crate::bed::note;
use crate::lab::{Lab, RUN_DIR};

pub(super) const CLAIMS: &[Claim] = claims![Small:
    limits_are_properties_of_the_unit,
    the_record_of_an_end_has_what_the_kernel_counts,
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
