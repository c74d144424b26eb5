//! The safe repairs. No repair ends a job.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use nix::unistd::Uid;

use super::super::apply::apply;
use super::super::common::confirm;
use super::finding::Fix;
use super::services::installed_program;
use crate::config;
use crate::firewall::FIREWALL_UNIT;
use crate::privileged;
use crate::terminal;
use crate::world::chain;

/// Carries out the repairs to which the operator agrees. Returns true if one was carried out. A failure is reported,
/// and the others are tried all the same.
pub(super) fn fix(config_path: &Path, fixes: &[Fix], yes: bool) -> anyhow::Result<bool> {
    if !Uid::effective().is_root() {
        bail!("cannot repair this host: permission denied; run this as root");
    }
    let mut any = false;
    for fix in fixes {
        if !confirm(fix.question(), yes)? {
            continue;
        }
        any = true;
        if let Err(error) = carry_out(config_path, *fix) {
            let error = format!("{error:#}");
            stdio::error(format_args!("cannot repair: {}", terminal::plain(&error)));
        }
    }
    Ok(any)
}

fn carry_out(config_path: &Path, fix: Fix) -> anyhow::Result<()> {
    match fix {
        // The next check tells what it cannot correct.
        Fix::Apply => apply(config_path, installed_program()),
        Fix::KernelSettings => systemctl(&["restart", "systemd-sysctl.service"]),
        Fix::Firewall => systemctl(&["restart", FIREWALL_UNIT]),
        Fix::ReloadUnits => systemctl(&["daemon-reload"]),
        Fix::Sweep => {
            let config = config::load(config_path)?;
            for failure in privileged::sweep_all(&config) {
                stdio::error(terminal::plain(&chain(&failure)));
            }
            Ok(())
        }
    }
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("systemctl")
        .args(arguments)
        .output()
        .context("cannot run systemctl")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!(
        "`systemctl {}` failed: {}",
        arguments.join(" "),
        said.trim()
    )
}
