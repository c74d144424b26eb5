//! Containers in which one protection is missing.
//!
//! systemd starts a slot of a separate pool as any other, through the launcher and with the
//! launcher's mounts. Only the last step differs: a drop-in puts our program before
//! `systemd-nspawn` in `PATH`. It becomes the real one with the launcher's arguments, changed by a
//! file. The loop of [`super::agent`] runs instead of an init, with and without the protection.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::agent::{Agent, both_script};
use super::program::{Change, Who};
use crate::claims::leader;
use crate::lab::Lab;

/// Machine name of the slot.
pub(super) const MACHINE: &str = "bare-1";
const UNIT: &str = "runner-bare@1.service";
const SHIM: &str = "/run/testbed/shim/systemd-nspawn";
const EDITS: &str = "/run/testbed/edits";
const INIT: &str = "/run/testbed/init";
/// Edits with which a container shares a namespace with the host.
const WITHOUT_NAMESPACE: [&str; 2] = ["--private-users=no", "!--network-veth-extra"];
/// The host's socket for notifications to systemd.
const NOTIFY_SOCKET: &str = "/run/systemd/notify";

/// Program that runs before `systemd-nspawn`. Edits are `--name=value` (replaces all of that
/// name, or is added), `+--name=value` (added), `!--name` (removed), `KEY=value` (environment),
/// `capability NAME` (kept instead of dropped), `raw-console` (output goes to the journal without the
/// launcher's reader), and `init` (the loop runs instead of the init).
/// Words up to the first one without a dash are options.
const SHIM_TEXT: &str = r#"#!/bin/bash
set -eu
machine=
for argument in "$@"; do case $argument in --machine=*) machine=${argument#*=};; esac; done
options=()
while [ $# -gt 0 ] && [[ $1 == -* ]]; do options+=("$1"); shift; done
without() {
  local kept=() option
  for option in "${options[@]}"; do [ "${option%%=*}" = "$1" ] || kept+=("$option"); done
  options=("${kept[@]}")
}
while IFS= read -r edit; do
  case $edit in
    init) without --boot; without --notify-ready; without --kill-signal; options+=(--as-pid2); set -- /bin/bash -c "$(cat /run/testbed/init)";;
    raw-console) exec > >(exec systemd-cat --identifier=raw-console) 2>&1;;
    capability\ *)
      name=${edit#* }
      for at in "${!options[@]}"; do
        [[ ${options[at]} == --drop-capability=* ]] || continue
        list=,${options[at]#*=},
        [[ $list == *,$name,* ]] || { echo "$name is not dropped" >&2; exit 1; }
        list=${list/,$name,/,}; list=${list#,}; options[at]=--drop-capability=${list%,}
      done
      options+=("--capability=$name");;
    !*) without "${edit#!}";;
    +*) options+=("${edit#+}");;
    --*) without "${edit%%=*}"; options+=("$edit");;
    *=*) export "$edit";;
  esac
done <"/run/testbed/edits/$machine"
PATH=/usr/sbin:/usr/bin exec systemd-nspawn "${options[@]}" "$@"
"#;

/// A running container.
#[derive(Debug)]
pub(super) struct Bare {
    pub(super) leader: String,
    job: Agent,
    root: Agent,
}

/// Puts the program that changes arguments before the real one, for matching units.
pub(super) fn install(lab: &Lab) -> Result<()> {
    let host = lab.host();
    host.write(SHIM, SHIM_TEXT.as_bytes(), 0o755)?;
    host.write(INIT, both_script().as_bytes(), 0o644)?;
    // The daemon starts an unchanged runner in this slot as well.
    edit(lab, MACHINE, UNIT, &[])
}

/// Lets a unit's launcher find our program first, and adds lines to the unit.
fn redirect(lab: &Lab, unit: &str, lines: &[&str]) -> Result<()> {
    let mut text = format!(
        "[Service]\nEnvironment=PATH={}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin\n",
        SHIM.trim_end_matches("/systemd-nspawn")
    );
    for line in lines {
        // Writing to a String cannot fail.
        writeln!(text, "{line}").ok();
    }
    let host = lab.host();
    let file = format!("/run/systemd/system/{unit}.d/attack.conf");
    host.write(&file, text.as_bytes(), 0o644)?;
    host.run(&["systemctl", "daemon-reload"]).map(drop)
}

/// Lets the containers of one slot start with more arguments, and otherwise unchanged.
pub(super) fn edit(lab: &Lab, machine: &str, unit: &str, edits: &[&str]) -> Result<()> {
    write_edits(lab, machine, edits)?;
    redirect(lab, unit, &[])
}

fn write_edits(lab: &Lab, machine: &str, edits: &[impl AsRef<str>]) -> Result<()> {
    let mut text = String::new();
    for edit in edits {
        text.push_str(edit.as_ref());
        text.push('\n');
    }
    lab.host()
        .write(&format!("{EDITS}/{machine}"), text.as_bytes(), 0o644)
}

/// Removes every change.
pub(super) fn remove(lab: &Lab) -> Result<()> {
    lab.host()
        .sh("rm -rf /run/systemd/system/runner-*.service.d/attack.conf /run/testbed/shim /run/testbed/edits /run/testbed/init; systemctl daemon-reload")
        .map(drop)
}

impl Bare {
    /// Starts a container with these changes.
    pub(super) fn start(lab: &Lab, changes: &[&Change]) -> Result<Self> {
        let mut edits = vec!["init".to_owned()];
        let mut lines = Vec::new();
        for change in changes {
            match change {
                Change::Nspawn(arguments) => edits.extend(arguments.iter().cloned()),
                Change::Capability(name) => edits.push(format!("capability {name}")),
                Change::Unit(more) => lines.extend(more.split("; ")),
                // These changes do not concern the container.
                Change::Firewall | Change::Host(..) | Change::Place(..) | Change::Service(_) => {}
            }
        }
        // The programs need no addresses, and a container without its own namespaces cannot have any. So nspawn tells
        // systemd itself that it is ready, and the launcher's programs hear nothing.
        if edits
            .iter()
            .any(|edit| WITHOUT_NAMESPACE.contains(&edit.as_str()))
        {
            edits.push(format!("NOTIFY_SOCKET={NOTIFY_SOCKET}"));
        }
        write_edits(lab, MACHINE, &edits)?;
        redirect(lab, UNIT, &lines)?;
        let host = lab.host();
        if let Err(error) = host.run(&["systemctl", "start", UNIT]) {
            return Err(error.context(lab.journal(UNIT, 15)));
        }
        let leader = leader(lab, MACHINE)?;
        let find = |who| {
            Agent::find(host, &leader, who)
                .with_context(|| format!("{edits:?}: {}", lab.journal(UNIT, 15)))
        };
        Ok(Self {
            job: find(Who::Job)?,
            root: find(Who::Root)?,
            leader,
        })
    }

    /// Returns the loop of one of its users.
    pub(super) fn agent(&mut self, who: Who) -> &mut Agent {
        match who {
            Who::Job => &mut self.job,
            Who::Root => &mut self.root,
        }
    }
}

/// Ends the container at once. The sweep removes what it leaves.
pub(super) fn stop(lab: &Lab) -> Result<()> {
    let host = lab.host();
    host.output(&[
        "systemctl",
        "kill",
        "--signal=KILL",
        "--kill-whom=main",
        UNIT,
    ])?;
    host.run(&["systemctl", "stop", UNIT])?;
    host.output(&["systemctl", "reset-failed", UNIT])?;
    Ok(())
}
