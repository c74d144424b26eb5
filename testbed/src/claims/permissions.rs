//! Rights of the daemon's user, of ordinary users, and of members of the daemon's group.

use std::process::Output;

use anyhow::{Context, Result, ensure};

use super::common::{SOON, daemon_pid, ensure_says, running};
use super::fixture::SMALL;
use super::suite::{Suite, suite};
use crate::lab::{Lab, RUN_DIR};
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![SMALL;
    the_daemon_has_no_privilege,
    polkit_refuses_every_other_verb_and_unit,
    polkit_refuses_a_transient_unit_in_the_place_of_a_template,
    the_daemon_cannot_write_files_that_root_reads,
    status_is_for_the_group_and_says_so,
];

/// Refusals of polkit, on behalf of systemd or machined, without a password.
const BY_POLKIT: &[&str] = &["nteractive authentication required", "Access denied"];
/// Refusals of the kernel and of tools.
const OTHERWISE: &[&str] = &[
    "Permission denied",
    "Operation not permitted",
    // A transient unit cannot take the name of an installed unit, not even for root.
    "already loaded or has a fragment file",
];
/// Refusals of systemd for names that a unit cannot have.
const NO_NAME: &[&str] = &[
    "is not valid",
    "missing the instance name",
    "Invalid argument",
    "not loaded",
];
/// Refusals of systemd to kill or reset a unit that is not loaded.
const NOT_LOADED: &[&str] = &["not loaded"];
/// The daemon's user.
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

/// Commands on a unit of a slot that the daemon may not give. `UNIT` is a running one, `VACANT`
/// one of a vacant slot.
const FORBIDDEN_VERBS: &[&str] = &[
    "systemctl restart UNIT",
    "systemctl try-restart UNIT",
    "systemctl reload UNIT",
    "systemctl reload-or-restart UNIT",
    "systemctl freeze UNIT",
    "systemctl thaw UNIT",
    "systemctl reset-failed UNIT",
    "systemctl set-property --runtime UNIT TasksMax=9",
    "systemctl clean --what=runtime VACANT",
    "systemctl enable VACANT",
    "systemctl disable VACANT",
    "systemctl reenable VACANT",
    "systemctl mask --runtime VACANT",
    "systemctl unmask VACANT",
    "systemctl preset VACANT",
    "systemctl link /etc/hosts.service",
    "systemctl revert VACANT",
    "systemctl edit --runtime --stdin VACANT",
    "systemctl add-wants multi-user.target VACANT",
    "busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager RefUnit s UNIT",
];

/// Units of slots that may have been configured before. The daemon may stop and kill them, and
/// may not start them.
const FORMER_UNITS: &[&str] = &[
    "runner-ci@5.service",
    "runner-ci@99.service",
    "runner-x@1.service",
];

/// Units with similar names that the daemon may not start, stop, kill or reset.
const FORBIDDEN_UNITS: &[&str] = &[
    "runner-ci@0.service",
    "runner-ci@007.service",
    "runner-ci@01.service",
    "runner-ci@1000.service",
    "runner-ci@99999999999999999999.service",
    "runner-ci@-1.service",
    "runner-ci@1x.service",
    "runner-ci@x1.service",
    "runner-ci@1:2.service",
    "runner-ci@1@1.service",
    "runner-ci@1.socket",
    "runner-ci@1.timer",
    "runner-ci@1.service.service",
    "xrunner-ci@1.service",
    "Runner-ci@1.service",
    "runner-CI@1.service",
    "runner-ci-x@1.service",
    "runner-toString@1.service",
    "runner-constructor@1.service",
    "runner-__proto__@1.service",
    "runner-@1.service",
    "runners-ci.slice",
    "runners.slice",
    "runner-controller.service",
    "runner-controller-firewall.service",
    "runner-controller-mounts.service",
    "runner-controller-mounts.socket",
    "dbus.service",
    "rescue.target",
];

/// Names that a unit cannot have. They go over the bus as they are.
const NO_UNITS: &[&str] = &[
    "runner-ci@.service",
    "runner-ci@1.slice",
    "runner-ci@+1.service",
    "runner-ci@1.service.d",
    "runner-ci@1.service\n",
    "\nrunner-ci@1.service",
    "runner-ci@1.service\nx.service",
    " runner-ci@1.service",
    "runner-ci@1.service ",
    "runner-ci@1\u{0661}.service",
    "../runner-ci@1.service",
    "/runner-ci@1.service",
];

/// Other commands that the daemon may not give.
const FORBIDDEN: &[&str] = &[
    "systemd-run --unit=runner-ci@4.service true",
    "systemd-run --unit=runner-ci@4 --scope true",
    "systemd-run true",
    "systemctl daemon-reload",
    "systemctl daemon-reexec",
    "systemctl set-environment A=b",
    "systemctl set-default rescue.target",
    "systemctl isolate rescue.target",
    "systemctl reset-failed",
    "systemctl cancel",
    "systemctl log-level debug",
    "systemctl poweroff",
    "systemctl reboot",
    "systemctl halt",
    "loginctl enable-linger root",
    // systemd-machined does not know the containers, only the host.
    "machinectl login .host",
    "machinectl shell .host /bin/true",
    "machinectl set-limit 1G",
    "hostnamectl hostname other",
    "timedatectl set-time 2001-01-01",
    "localectl set-locale C",
    "nsenter --target 1 --mount true",
    "nft list ruleset",
    "cat /etc/runner-controller/token",
];

/// Beginning of a call over the bus, because `systemctl` would change or refuse a strange name.
const MANAGER: [&str; 5] = [
    "busctl",
    "call",
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
];

/// Returns the daemon's calls for which systemd loads the unit, and so asks polkit for every
/// name.
fn start_and_stop(unit: &str) -> [Vec<&str>; 2] {
    ["StartUnit", "StopUnit"].map(|verb| [&MANAGER[..], &[verb, "ss", unit, "replace"]].concat())
}

/// Returns the daemon's calls for loaded units. The signal is one that does no harm.
fn kill_and_reset(unit: &str) -> [Vec<&str>; 2] {
    [
        &["KillUnit", "ssi", unit, "main", "28"][..],
        &["ResetFailedUnit", "s", unit],
    ]
    .map(|call| [&MANAGER, call].concat())
}

/// The words of a command.
type Command<'a> = Vec<&'a str>;
/// Refusals, each by the words in it.
type Ways<'a> = &'a [&'a [&'a str]];

/// Returns the commands of the daemon's user that were not refused in one of these ways.
fn not_refused(lab: &Lab, commands: &[Command<'_>], ways: Ways<'_>) -> Result<Vec<String>> {
    let mut granted = Vec::new();
    for command in commands {
        let output = as_user(lab, USER, command)?;
        let text = said(&output);
        let refused = ways.iter().copied().flatten();
        if output.status.success() || !refused.into_iter().any(|words| text.contains(words)) {
            granted.push(format!("{}: {text}", command.join(" ")));
        }
    }
    Ok(granted)
}

fn polkit_refuses_every_other_verb_and_unit(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let before = running(lab)?;
    let machine = before.keys().next().context("nothing lives")?;
    let unit = format!("runner-{}.service", machine.replace('-', "@"));
    let vacant = "runner-ci@4.service";
    let named = |command: &'static str| -> Command<'_> {
        let words = command.split(' ').map(|word| match word {
            "UNIT" => unit.as_str(),
            "VACANT" => vacant,
            other => other,
        });
        words.collect()
    };
    let commands = |table: &[&'static str]| table.iter().copied().map(named).collect::<Vec<_>>();
    let started = |names: &[&'static str]| -> Vec<_> {
        names.iter().copied().flat_map(start_and_stop).collect()
    };
    let killed = |names: &[&'static str]| -> Vec<_> {
        names.iter().copied().flat_map(kill_and_reset).collect()
    };
    let begun = FORMER_UNITS.iter().copied().flat_map(|unit| {
        let ([start, _], [_, reset]) = (start_and_stop(unit), kill_and_reset(unit));
        [start, reset]
    });
    // All commands are tried before the claim fails.
    let tables: [(Vec<Command<'_>>, Ways<'_>); 7] = [
        (commands(FORBIDDEN_VERBS), &[BY_POLKIT]),
        (commands(FORBIDDEN), &[BY_POLKIT, OTHERWISE]),
        (started(FORBIDDEN_UNITS), &[BY_POLKIT]),
        (killed(FORBIDDEN_UNITS), &[BY_POLKIT, NOT_LOADED]),
        (begun.collect(), &[BY_POLKIT, NOT_LOADED]),
        (started(NO_UNITS), &[NO_NAME]),
        (killed(NO_UNITS), &[NO_NAME]),
    ];
    let mut granted = Vec::new();
    for (commands, ways) in &tables {
        granted.extend(not_refused(lab, commands, ways)?);
    }
    ensure!(
        granted.is_empty(),
        "{} were not refused: {granted:#?}",
        granted.len()
    );
    ensure!(running(lab)? == before, "something changed all the same");
    // The control: the granted calls succeed for the same user. They change nothing, because one
    // unit runs already and the others do not.
    let [start, _] = start_and_stop(&unit);
    let [_, stop] = start_and_stop(vacant);
    let [_, stop_former] = start_and_stop(FORMER_UNITS[0]);
    let [kill, _] = kill_and_reset(&unit);
    for call in [start, stop, stop_former, kill] {
        let output = as_user(lab, USER, &call)?;
        ensure!(
            output.status.success(),
            "{}: {}",
            call.join(" "),
            said(&output)
        );
    }
    // An ordinary user may not do even that.
    let output = as_user(lab, "nobody", &["systemctl", "stop", &unit])?;
    ensure!(!output.status.success(), "nothing stopped {unit}");
    lab.await_settled(SOON).map(drop)
}

/// File that the command of a transient unit makes.
const MADE: &str = "/run/testbed-transient";

/// Without the template, only polkit is between the daemon and a command that runs as root.
fn polkit_refuses_a_transient_unit_in_the_place_of_a_template(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    // A running daemon ends what it finds in a slot, often before the control's command has run.
    lab.stop()?;
    let template = "/etc/systemd/system/runner-ci@.service";
    let text = lab.host().run(&["cat", template])?;
    lab.host().run(&["rm", template])?;
    lab.host().run(&["systemctl", "daemon-reload"])?;
    let outcome = start_transient(lab);
    lab.host().write(template, text.as_bytes(), 0o644)?;
    lab.host().run(&["systemctl", "daemon-reload"])?;
    lab.host().run(&["rm", "-f", MADE])?;
    lab.start()?;
    outcome?;
    lab.await_settled(SOON).map(drop)
}

fn start_transient(lab: &Lab) -> Result<()> {
    let start = |mode: &'static str| -> Command<'static> {
        let mut call = MANAGER.to_vec();
        call.extend([
            "StartTransientUnit",
            "ssa(sv)a(sa(sv))",
            "runner-ci@4.service",
            mode,
        ]);
        call.extend([
            "2",
            "Type",
            "s",
            "oneshot",
            "ExecStart",
            "a(sasb)",
            "1",
            "/usr/bin/touch",
        ]);
        call.extend(["2", "/usr/bin/touch", MADE, "false", "0"]);
        call
    };
    let modes = ["fail", "replace", "isolate", "ignore-dependencies"].map(start);
    let granted = not_refused(lab, &modes, &[BY_POLKIT])?;
    ensure!(granted.is_empty(), "not refused: {granted:#?}");
    // The control: root may, and the command runs.
    lab.host().run(&start("replace"))?;
    wait_until("the command of the transient unit", SOON, || {
        let made = lab.host().sh(&format!("ls {MADE} 2>/dev/null || true"))?;
        Ok(if made.is_empty() {
            Seen::NotYet("it has not run".into())
        } else {
            Seen::Done(())
        })
    })
}

fn the_daemon_cannot_write_files_that_root_reads(lab: &mut Lab) -> Result<()> {
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
