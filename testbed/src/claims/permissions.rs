//! Who may do what: the daemon's user, ordinary users, and those in the daemon's group.

use std::process::Output;

use anyhow::{Context, Result, ensure};

use super::common::{SOON, daemon_pid, ensure_says, lives};
use super::fixture::SMALL;
use super::{Suite, suite};
use crate::lab::{Lab, RUN_DIR};

pub(super) const SUITE: Suite = suite![SMALL;
    the_daemon_has_no_privilege,
    polkit_refuses_every_other_verb_and_unit,
    what_root_reads_is_not_the_daemons_to_write,
    status_is_for_the_group_and_says_so,
];

/// How polkit, asked by systemd or machined, says no to who cannot give a password.
const BY_POLKIT: &[&str] = &["nteractive authentication required", "Access denied"];
/// How the kernel and tools do.
const OTHERWISE: &[&str] = &[
    "Permission denied",
    "Operation not permitted",
    // A transient unit cannot take the name of one that is installed, whoever asks.
    "already loaded or has a fragment file",
];
/// What systemd answers, whoever asks, of names that no unit can have.
const NO_NAME: &[&str] = &[
    "is not valid",
    "missing the instance name",
    "Invalid argument",
    "not loaded",
];
/// And of units that are not there to be killed or reset.
const NOT_LOADED: &[&str] = &["not loaded"];
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

/// What systemd is asked to do to a unit of ours and may not do for the daemon. `UNIT` is one that
/// lives, `VACANT` one that does not.
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

/// Units of slots that may have been configured before. The daemon may stop and kill them, but not
/// start them.
const FORMER_UNITS: &[&str] = &[
    "runner-ci@5.service",
    "runner-ci@99.service",
    "runner-x@1.service",
];

/// Units that are not the daemon's to start, stop, kill and reset, however like ours they look.
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
    "dbus.service",
    "rescue.target",
];

/// No names that a unit can have. They go over the bus as they are, where nothing tidies them.
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

/// And everything else that may be asked for.
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
    "machinectl terminate MACHINE",
    "machinectl kill MACHINE",
    "machinectl poweroff MACHINE",
    "machinectl login MACHINE",
    "machinectl shell MACHINE /bin/true",
    "machinectl copy-from MACHINE /etc/shadow /tmp/shadow",
    "machinectl copy-to MACHINE /etc/hosts /tmp/hosts",
    "machinectl bind MACHINE /etc",
    "hostnamectl hostname other",
    "timedatectl set-time 2001-01-01",
    "localectl set-locale C",
    "nsenter --target 1 --mount true",
    "nft list ruleset",
    "cat /etc/runner-controller/token",
];

/// Over the bus itself: `systemctl` would tidy a strange name, or refuse it on its own.
const MANAGER: [&str; 5] = [
    "busctl",
    "call",
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
];

/// Of the verbs that the daemon has for its own units, as calls: those for which systemd loads the unit,
/// and so asks polkit of every name.
fn start_and_stop(unit: &str) -> [Vec<&str>; 2] {
    ["StartUnit", "StopUnit"].map(|verb| [&MANAGER[..], &[verb, "ss", unit, "replace"]].concat())
}

/// And those that are for units that are loaded. The signal is one that nobody minds.
fn kill_and_reset(unit: &str) -> [Vec<&str>; 2] {
    [
        &["KillUnit", "ssi", unit, "main", "28"][..],
        &["ResetFailedUnit", "s", unit],
    ]
    .map(|call| [&MANAGER, call].concat())
}

/// The words of a command.
type Command<'a> = Vec<&'a str>;
/// Ways to say no, each by the words that tell it.
type Ways<'a> = &'a [&'a [&'a str]];

/// Commands of the daemon's user that were not refused in one of these ways.
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
    let before = lives(lab)?;
    let machine = before.keys().next().context("nothing lives")?;
    let unit = format!("runner-{}.service", machine.replace('-', "@"));
    let vacant = "runner-ci@4.service";
    let named = |command: &'static str| -> Command<'_> {
        let words = command.split(' ').map(|word| match word {
            "UNIT" => unit.as_str(),
            "VACANT" => vacant,
            "MACHINE" => machine.as_str(),
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
    // All of them are tried before any is complained of.
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
    ensure!(lives(lab)? == before, "something changed all the same");
    // Else silence would prove nothing: what is granted is granted to this very user, by these very
    // calls. None of them changes anything: one unit runs, the others do not.
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
    // An ordinary user may not even that.
    let output = as_user(lab, "nobody", &["systemctl", "stop", &unit])?;
    ensure!(!output.status.success(), "nobody stopped {unit}");
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
