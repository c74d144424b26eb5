//! The calls of systemd's programs, in their order.

use std::path::PathBuf;
use std::process::Command;

use crate::firewall::FIREWALL_UNIT;
use crate::hostfiles::MOUNTS_SERVICE;

/// Unit of the daemon.
const DAEMON_UNIT: &str = "runner-controller.service";
/// Directory of enabled and disabled units.
const UNITS: &str = "/etc/systemd/system";

/// Failure of a program.
#[derive(Debug, thiserror::Error)]
#[error("cannot run `{command}`: {reason}{hint}")]
pub(super) struct StepError {
    command: String,
    reason: String,
    hint: String,
}

fn run(command: &[&str]) -> Result<(), StepError> {
    let failed = |reason: String, hint: &str| StepError {
        command: command.join(" "),
        reason,
        hint: hint.to_owned(),
    };
    let [program, arguments @ ..] = command else {
        return Ok(());
    };
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| failed(error.to_string(), ""))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.trim().is_empty());
    let reason = said.map_or_else(|| output.status.to_string(), str::to_owned);
    Err(failed(
        reason,
        "; run `runner-controller apply` again after a repair",
    ))
}

/// Runs a step whose failure keeps no other step from working.
fn attempt(command: &[&str]) {
    if let Err(error) = run(command) {
        stdio::error(format_args!("runner-controller: {error}"));
    }
}

/// Creates user and directories, and applies the kernel's settings.
pub(super) fn prepare_host() -> Result<(), StepError> {
    run(&["systemd-sysusers", "/etc/sysusers.d/runner-controller.conf"])?;
    run(&["systemd-tmpfiles", "--create", "runner-controller.conf"])?;
    // Both services read all files, so settings of the operator keep their precedence. A setting or module
    // that this kernel does not have fails them, and the check afterwards finds what is missing.
    attempt(&["systemctl", "restart", "systemd-modules-load.service"]);
    attempt(&["systemctl", "restart", "systemd-sysctl.service"]);
    // Network managers that already run read their new files. Neither touches a link that has its state.
    for (unit, reload) in [
        ("systemd-networkd.service", &["networkctl", "reload"][..]),
        (
            "NetworkManager.service",
            &["systemctl", "reload", "NetworkManager.service"],
        ),
    ] {
        if run(&["systemctl", "is-active", "--quiet", unit]).is_ok() {
            attempt(reload);
        }
    }
    reload_units()
}

/// Lets systemd read all units again. Running runners keep the rules with which they started.
pub(super) fn reload_units() -> Result<(), StepError> {
    run(&["systemctl", "daemon-reload"])
}

/// Starts the firewall and the daemon, or restarts them with the new files.
///
/// The table stays loaded during the restart of its owner, and the next daemon adopts all runners. It starts the socket
/// of the holder of mounts.
pub(super) fn restart_services() -> Result<(), StepError> {
    attempt(&["systemctl", "try-restart", MOUNTS_SERVICE]);
    run(&["systemctl", "enable", "--quiet", FIREWALL_UNIT, DAEMON_UNIT])?;
    run(&["systemctl", "restart", FIREWALL_UNIT])?;
    run(&["systemctl", "restart", DAEMON_UNIT])
}

/// Stops the units whose files were removed. systemd keeps a running unit without its file.
pub(super) fn stop_obsolete(removed: &[PathBuf]) {
    for path in removed {
        let unit = path.file_name().and_then(|name| name.to_str());
        if let Some(unit) = unit.filter(|_| path.parent().is_some_and(|dir| dir == UNITS)) {
            attempt(&["systemctl", "stop", unit]);
        }
    }
}
