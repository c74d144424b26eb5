//! What is left of root to root's small programs, and of the daemon to its unit.

use anyhow::{Context, Result, ensure};

use super::Claim;
use super::claims;
use super::common::{SOON, spare};
use crate::bed::note;
use crate::lab::{DAEMON, Lab, RUN_DIR};
use crate::wait::{Seen, wait_until};

pub(super) const CLAIMS: &[Claim] = claims![Small:
    connect_and_sweep_keep_little_of_root,
    a_sweep_of_what_nobody_owns_keeps_little_of_root,
    the_daemons_unit_is_closed,
];

const PROGRAM: &str = "/usr/local/bin/runner-controller";
const DROP_IN: &str = "/run/systemd/system/runner-ci@.service.d/traced.conf";

/// Bits of `linux/capability.h`.
const DAC_OVERRIDE: u64 = 1 << 1;
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;

/// A program of root's, held at its end so that the kernel can be asked what it still may.
fn traced(command: &str) -> String {
    format!(
        "strace --follow-forks --quiet=all --output={} --trace=landlock_restrict_self,exit_group \
         --inject=exit_group:delay_enter=6000000 {PROGRAM} {command}",
        trace_of(command)
    )
}

fn trace_of(command: &str) -> String {
    let name = command.split(' ').next().unwrap_or(command);
    format!("/run/testbed-{name}.strace")
}

/// Waits until such a program runs, is in its cage, and has these capabilities and no others.
fn ensure_caged(lab: &Lab, command: &str, capabilities: u64) -> Result<()> {
    let find = format!(
        "for pid in $(pgrep --full '^{PROGRAM} {command}'); do cat /proc/$pid/status; done 2>/dev/null; true"
    );
    let wanted = [
        ("NoNewPrivs:", "1".to_owned()),
        ("Seccomp:", "2".to_owned()),
        ("CapInh:", format!("{:016x}", 0)),
        ("CapAmb:", format!("{:016x}", 0)),
        ("CapBnd:", format!("{capabilities:016x}")),
        ("CapPrm:", format!("{capabilities:016x}")),
        ("CapEff:", format!("{capabilities:016x}")),
    ];
    wait_until(&format!("{command} in its cage"), SOON, || {
        let status = lab.host().sh(&find)?;
        let is = |(name, value): &(&str, String)| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .is_some_and(|found| found.trim() == value)
        };
        Ok(if wanted.iter().all(is) {
            Seen::Done(())
        } else {
            Seen::NotYet(status)
        })
    })?;
    // The files in view are not to be read from /proc.
    let trace = trace_of(command);
    wait_until("the end of it", SOON, || {
        let text = lab.host().sh(&format!("cat {trace}"))?;
        Ok(
            if text.contains("landlock_restrict_self(") && text.contains("= 0") {
                Seen::Done(())
            } else {
                Seen::NotYet(text)
            },
        )
    })
}

fn connect_and_sweep_keep_little_of_root(lab: &mut Lab) -> Result<()> {
    let held = lab.await_settled(SOON)?;
    let unit = spare(&held)?.unit;
    lab.host().write(
        DROP_IN,
        format!(
            "[Service]\nExecStartPost=\nExecStartPost={}\nExecStopPost=\nExecStopPost={}\n",
            traced("connect ci %i"),
            traced("sweep ci %i")
        )
        .as_bytes(),
        0o644,
    )?;
    lab.host().run(&["systemctl", "daemon-reload"])?;
    let outcome = (|| {
        lab.host()
            .run(&["systemctl", "--no-block", "stop", &unit])?;
        ensure_caged(lab, "sweep ci", NET_ADMIN)?;
        // The spare's successor.
        ensure_caged(lab, "connect ci", NET_ADMIN | SYS_ADMIN)
    })();
    lab.host().run(&["rm", DROP_IN])?;
    lab.host().run(&["systemctl", "daemon-reload"])?;
    outcome?;
    lab.await_settled(SOON).map(drop)
}

fn a_sweep_of_what_nobody_owns_keeps_little_of_root(lab: &mut Lab) -> Result<()> {
    let dirs = format!("{RUN_DIR}/lives/gone-7 {RUN_DIR}/slots/gone-7");
    lab.host().sh(&format!(
        "install --directory --owner=runner-controller {dirs} && touch {RUN_DIR}/slots/gone-7/jit.sock"
    ))?;
    lab.host().run(&[
        "systemd-run",
        "--quiet",
        "--collect",
        "--unit=testbed-sweep-unowned.service",
        "sh",
        "-c",
        &traced("sweep-unowned"),
    ])?;
    ensure_caged(lab, "sweep-unowned", DAC_OVERRIDE | NET_ADMIN)?;
    let left = lab
        .host()
        .sh(&format!("ls -d {dirs} 2>/dev/null || true"))?;
    ensure!(left.is_empty(), "still there: {left}");
    Ok(())
}

/// The most that `systemd-analyze security` may find open of the daemon, of 10.
const EXPOSURE: f64 = 2.0;
/// And of the firewall's, which is root with two capabilities over the host's network.
const FIREWALL_EXPOSURE: f64 = 2.5;

fn the_daemons_unit_is_closed(lab: &mut Lab) -> Result<()> {
    for (unit, most) in [
        (DAEMON, EXPOSURE),
        ("runner-controller-firewall.service", FIREWALL_EXPOSURE),
    ] {
        let report = lab
            .host()
            .run(&["systemd-analyze", "security", "--no-pager", unit])?;
        // → Overall exposure level for runner-controller.service: 1.3 OK
        let exposure: f64 = report
            .lines()
            .find_map(|line| {
                line.split_once("Overall exposure level for ")?
                    .1
                    .split_once(": ")
            })
            .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
            .with_context(|| format!("no exposure in: {report}"))?;
        note(&format!("{unit}: exposure {exposure} of 10"));
        ensure!(exposure <= most, "{exposure} is more than {most}: {report}");
    }
    Ok(())
}
