//! Who may do what: the daemon's user, ordinary users, and those in the daemon's group.

use std::process::Output;

use anyhow::{Context, Result, ensure};

use super::Claim;
use super::claims;
use super::common::{SOON, daemon_pid, ensure_says, lives};
use crate::lab::{Lab, RUN_DIR};

pub(super) const CLAIMS: &[Claim] = claims![Small:
    the_daemon_has_no_privilege,
    polkit_refuses_every_other_verb_and_unit,
    what_root_reads_is_not_the_daemons_to_write,
    status_is_for_the_group_and_says_so,
];

/// How polkit, the kernel and tools say no.
const REFUSALS: &[&str] = &[
    "nteractive authentication required",
    "Access denied",
    "Permission denied",
    "Operation not permitted",
    // A transient unit cannot take the name of one that is installed, whoever asks.
    "already loaded or has a fragment file",
];
/// Who the daemon is.
const USER: &str = "runner-controller";

/// Runs a command in the host as a user, in that user's groups.
fn as_user(lab: &Lab, user: &str, command: &[&str]) -> Result<Output> {
    let (user, group) = (format!("--reuid={user}"), format!("--regid={user}"));
    let mut argv = vec!["setpriv", &user, &group, "--init-groups", "--"];
    argv.extend(command);
    lab.host().output(&argv)
}

fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn the_daemon_has_no_privilege(lab: &mut Lab) -> Result<()> {
    let status = lab.host().sh(&format!(
        "cat /proc/{0}/status; echo user $(stat -c %U /proc/{0})",
        daemon_pid(lab)?
    ))?;
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "user runner-controller",
    ] {
        ensure!(
            status.lines().any(|found| found == line),
            "no {line:?} in: {status}"
        );
    }
    Ok(())
}

fn polkit_refuses_every_other_verb_and_unit(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let before = lives(lab)?;
    let alive = before.keys().next().context("nothing lives")?;
    let alive = format!("runner-{}.service", alive.replace('-', "@"));
    let vacant = "runner-ci@4.service";
    let refused: &[&[&str]] = &[
        // Verbs, of a unit that is ours.
        &["systemctl", "restart", &alive],
        &["systemctl", "reload", &alive],
        &["systemctl", "freeze", &alive],
        &[
            "systemctl",
            "set-property",
            "--runtime",
            &alive,
            "TasksMax=9",
        ],
        &["systemctl", "clean", "--what=runtime", vacant],
        &["systemctl", "enable", vacant],
        &["systemctl", "mask", "--runtime", vacant],
        &["systemctl", "edit", "--runtime", "--stdin", vacant],
        // Units that are not.
        &["systemctl", "start", "runner-ci@5.service"],
        &["systemctl", "start", "runner-ci@04.service"],
        &["systemctl", "start", "runner-ci@0.service"],
        &["systemctl", "start", "runner-ci@4x.service"],
        &["systemctl", "start", "runner-other@1.service"],
        &["systemctl", "stop", "runners-ci.slice"],
        &["systemctl", "stop", "testbed-lan.service"],
        &["systemctl", "kill", "dbus.service"],
        &["systemctl", "start", "runner-controller.service"],
        &["systemctl", "stop", "runner-controller-firewall.service"],
        &["systemctl", "start", "rescue.target"],
        // And everything else that systemd does for those who may.
        &["systemd-run", "--unit=runner-ci@4.service", "true"],
        &["systemd-run", "true"],
        &["systemctl", "daemon-reload"],
        &["systemctl", "daemon-reexec"],
        &["systemctl", "set-environment", "A=b"],
        &["systemctl", "poweroff"],
        &[
            "machinectl",
            "terminate",
            before.keys().next().map_or("", String::as_str),
        ],
        &[
            "machinectl",
            "kill",
            before.keys().next().map_or("", String::as_str),
        ],
        &[
            "machinectl",
            "copy-from",
            before.keys().next().map_or("", String::as_str),
            "/etc/shadow",
            "/tmp/shadow",
        ],
        &[
            "machinectl",
            "bind",
            before.keys().next().map_or("", String::as_str),
            "/etc",
        ],
        &["nsenter", "--target", "1", "--mount", "true"],
        &["nft", "list", "ruleset"],
        &["cat", "/etc/runner-controller/token"],
    ];
    for command in refused {
        let output = as_user(lab, USER, command)?;
        let text = said(&output);
        ensure!(
            !output.status.success() && REFUSALS.iter().any(|words| text.contains(words)),
            "{} was not refused: {text}",
            command.join(" ")
        );
    }
    ensure!(lives(lab)? == before, "something changed all the same");
    // Else silence would prove nothing: what is granted is granted to this very user.
    for verb in ["kill", "stop", "reset-failed", "start", "stop"] {
        let output = as_user(lab, USER, &["systemctl", verb, vacant])?;
        let text = said(&output);
        let granted = output.status.success() || !text.contains("authentication required");
        ensure!(
            granted && !text.contains("Access denied"),
            "{verb} {vacant}: {text}"
        );
    }
    // An ordinary user may not even that.
    let output = as_user(lab, "nobody", &["systemctl", "stop", &alive])?;
    ensure!(!output.status.success(), "nobody stopped {alive}");
    lab.await_settled(SOON).map(drop)
}

fn what_root_reads_is_not_the_daemons_to_write(lab: &mut Lab) -> Result<()> {
    let script = format!(
        "for path in /etc/runner-controller /etc/runner-controller/config.toml /etc/systemd/system /etc/polkit-1/rules.d \
         {RUN_DIR} {RUN_DIR}/slots {RUN_DIR}/lives {RUN_DIR}/lives/ci-1 {RUN_DIR}/lives/ci-1/* {RUN_DIR}/mnt \
         /var/lib/runner-images /var/lib/runner-images/debian/etc {layers} /usr/local/bin/runner-controller; do\n\
         [ -w $path ] && echo $path\n\
         done; true",
        layers = lab.host().layer_dir()
    );
    let output = as_user(lab, USER, &["sh", "-c", &script])?;
    let writable = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success() && writable.is_empty(),
        "the daemon's user can write {writable}{}",
        said(&output)
    );
    Ok(())
}

fn status_is_for_the_group_and_says_so(lab: &mut Lab) -> Result<()> {
    let host = lab.host();
    let group = host.sh(&format!("getent group {USER} | cut -d: -f3"))?;
    let group = format!("--groups={}", group.trim());
    let user = ["setpriv", "--reuid=65534", "--regid=65534"];
    let asks = |groups: &str, command: &[&str]| {
        let mut argv: Vec<&str> = user.to_vec();
        argv.push(groups);
        argv.push("--");
        argv.extend(command);
        host.output(&argv)
    };
    for command in [
        &["runner-controller", "status"][..],
        &["runner-controller", "status", "--json"],
    ] {
        let output = asks(&group, command)?;
        ensure!(output.status.success(), "in the group: {}", said(&output));
        ensure_says(&said(&output), &["ci-1", "idle", "spare"])?;
        let output = asks("--clear-groups", command)?;
        ensure!(
            !output.status.success(),
            "outside of the group: {}",
            said(&output)
        );
        ensure_says(&said(&output), &["group runner-controller"])?;
    }
    Ok(())
}
