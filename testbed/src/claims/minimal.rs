//! Images whose runner boots first, and the rest of whose system starts with the config.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use status::{PhaseKind, Verdict};

use super::common::{SOON, await_verdict, ensure_says, in_container};
use super::docker::{FIXTURE, in_phase, run_in};
use super::suite::{Suite, suite};
use crate::lab::Lab;

pub(super) const SUITE: Suite = suite![FIXTURE;
    a_spare_of_a_minimal_image_has_its_runner_and_no_other_service,
    jobs_find_the_same_in_a_minimal_image,
    the_output_of_a_minimal_image_is_in_the_hosts_journal,
];

/// Pools with the same image, stock and minimal.
const STOCK: &str = "ci";
const MINIMAL: &str = "disk";

/// The lines that are in one of the two.
const DIFFERENT: [&str; 3] = [
    // The listener's lines go to the console and not to the container's journal.
    "variable: JOURNAL_STREAM",
    // The generator that reads /etc/fstab does not run.
    "unit: local-fs-pre.target",
    "unit: systemd-remount-fs.service",
];

/// Script that shows everything that a job can see of its system, except for its layer.
const CENSUS: &str = include_str!("minimal/census.sh");

fn a_spare_of_a_minimal_image_has_its_runner_and_no_other_service(lab: &mut Lab) -> Result<()> {
    let status = lab.await_settled(SOON)?;
    let spare = in_phase(&status, MINIMAL, PhaseKind::Spare)?;
    let look = "systemctl list-units --plain --no-legend --type=service --state=active,activating | cut -d ' ' -f 1; \
                systemctl is-active sysinit.target dbus.socket systemd-journald.socket; \
                systemctl is-system-running";
    let said = in_container(lab, &spare, &["sh", "-c", look])?;
    let wanted = "github-runner.service\ninactive\ninactive\ninactive\nrunning\n";
    ensure!(said == wanted, "{said}");
    let idle = in_phase(&status, MINIMAL, PhaseKind::Idle)?;
    let rest = "until systemctl --quiet is-active multi-user.target; do sleep 0.05; done; \
                systemctl is-active sysinit.target dbus.socket systemd-journald.socket";
    let said = in_container(lab, &idle, &["timeout", "30", "sh", "-c", rest])?;
    ensure!(said == "active\nactive\nactive\n", "{said}");
    Ok(())
}

fn jobs_find_the_same_in_a_minimal_image(lab: &mut Lab) -> Result<()> {
    let stock = run_in(lab, STOCK, CENSUS)?.facts.log_tail;
    let minimal = run_in(lab, MINIMAL, CENSUS)?.facts.log_tail;
    ensure_says(
        &stock,
        &[
            "state: running\n",
            "root: root\n",
            "journal: hello\n",
            "the census is complete\n",
        ],
    )?;
    let different: BTreeSet<&str> = diff(&stock, &minimal)
        .chain(diff(&minimal, &stock))
        .collect();
    ensure!(different == BTreeSet::from(DIFFERENT), "{different:#?}");
    Ok(())
}

/// Returns the lines of the census that only the first text has.
fn diff<'a>(one: &'a str, other: &'a str) -> impl Iterator<Item = &'a str> {
    let census = |line: &&str| !line.starts_with("the census begins");
    one.lines()
        .skip_while(census)
        .filter(|line| !other.lines().any(|there| there == *line))
}

fn the_output_of_a_minimal_image_is_in_the_hosts_journal(lab: &mut Lab) -> Result<()> {
    let job = run_in(lab, MINIMAL, "true")?;
    let name = job.runner_name.unwrap_or_default();
    let ended = await_verdict(lab, &name, Verdict::JobDone)?;
    let invocation = ended.invocation.context("it was started")?;
    let invocation = format!("_SYSTEMD_INVOCATION_ID={invocation}");
    let said = lab.journalctl(&["--output=cat", &invocation])?;
    ensure_says(&said, &["Listening for Jobs\n", "Running job: disk\n"])
}
