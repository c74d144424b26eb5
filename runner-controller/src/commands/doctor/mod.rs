//! `doctor`: checks everything that can be wrong on this host and at GitHub, and offers safe repairs.
//!
//! Facts are collected first and judged by pure functions. It needs no daemon, and it runs the checks of
//! `check-config --host`, too.
//!
//! - `finding`: a finding, the report, its text and exit status
//! - `platform`: kernel, systemd, control groups and ID-mapped mounts
//! - `network`, `dns`: firewall, forwarding, and real packets from where a runner would be
//! - `github`: credentials, permissions, clock, runner groups and other runners
//! - `services`: host files, units and the daemon
//! - `hook`: the hook of GitHub's deliveries
//! - `scale_set`: the scale sets of pools
//! - `space`: disk, memory, tables of the kernel, leftovers
//! - `fix`: the repairs

mod dns;
mod finding;
mod fix;
mod github;
mod hook;
mod network;
mod platform;
mod scale_set;
mod services;
mod space;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use nix::unistd::Uid;

use self::finding::{Finding, Level, Report, of_host_check, of_mistake};
use super::apply::is_nixos;
use super::common::{api_socket, block_on, forbid_core_dumps};
use super::host_check;
use crate::config::{self, Config};
use crate::http::client::{self, ClientError};
use crate::privileged;
use crate::status::Status;
use crate::terminal;

/// Form of the report, and the repairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DoctorOptions {
    /// Print the report as JSON.
    pub json: bool,
    /// Offer the safe repairs, and check again.
    pub fix: bool,
    /// Repair without asking.
    pub yes: bool,
}

/// Checks this host and GitHub, and prints a report. The exit status is that of `status`: 0 without a problem, 1
/// with one, 2 without a daemon.
pub fn doctor(config_path: &Path, options: DoctorOptions) -> anyhow::Result<ExitCode> {
    forbid_core_dumps()?;
    let mut report = examine(config_path)?;
    if options.fix && !report.fixes().is_empty() {
        stdio::progress(report.text().trim_end());
        if fix::fix(config_path, &report.fixes(), options.yes)? {
            report = examine(config_path)?;
        }
    }
    if options.json {
        let text = serde_json::to_string_pretty(&report)?;
        stdio::print_line(terminal::plain_json(&text))?;
    } else {
        stdio::print(report.text())?;
    }
    Ok(ExitCode::from(report.exit_status()))
}

/// Returns the report as text, for a support bundle.
pub(super) fn report_text(config_path: &Path) -> anyhow::Result<String> {
    Ok(examine(config_path)?.text())
}

fn examine(config_path: &Path) -> anyhow::Result<Report> {
    let mut findings = Vec::new();
    let config = match config::load(config_path) {
        Ok(config) => Some(config),
        Err(mistakes) => {
            let list = mistakes.list.into_iter();
            findings.extend(list.map(|mistake| of_mistake("configuration", mistake)));
            None
        }
    };
    findings.extend(platform::judge(&platform::facts()));
    let is_root = Uid::effective().is_root();
    if !is_root {
        let reason = "not run as root: ID-mapped mounts, firewall, the runners' network, leftovers and secrets";
        findings.push(Finding::skipped("privileges", reason));
    }
    if let Some(config) = &config {
        findings.extend(of_host_check(
            "configuration",
            host_check::lasting(config, config_path),
        ));
        if is_root {
            findings.extend(platform::id_maps(config));
            let firewall = network::check_firewall(config);
            let is_firewall_wrong = firewall.level == Level::Problem;
            findings.push(firewall);
            findings.extend(network::probe_networks(config, is_firewall_wrong));
        }
        findings.extend(space::check(config));
        findings.push(services::check_host_files(config, config_path, is_nixos()));
    }
    findings.extend(services::check_units(is_nixos()));
    let (rest, daemon_answers) = block_on(ask(config_path, config.as_ref(), is_root))?;
    findings.extend(rest);
    Ok(Report::new(findings, daemon_answers))
}

/// Asks GitHub and the daemon. Returns true if the daemon answered.
async fn ask(config_path: &Path, config: Option<&Config>, is_root: bool) -> (Vec<Finding>, bool) {
    let of_github = match config {
        Some(config) if is_root => github::ask_all(config).await,
        _ => Vec::new(),
    };
    let answer = client::status(&api_socket(config_path)).await;
    let status = answer.as_ref().ok();
    let mut findings = Vec::new();
    if let Some(config) = config.filter(|_| is_root) {
        findings.extend(github::judge_all(config, of_github, &owned(&answer)));
        if let Some(webhook) = &config.webhook {
            findings.extend(hook::check(webhook, status).await);
        }
        findings.extend(scale_set::judge_all(status));
        findings.push(space::check_leftovers(config, status.is_some()));
    }
    findings.extend(services::judge_daemon(&answer));
    (findings, status.is_some())
}

/// Returns the names of runners that have a container here. Without a daemon they are known only if no container
/// lives.
fn owned(answer: &Result<Status, ClientError>) -> github::Owned {
    if let Ok(status) = answer {
        let runners = status.runners();
        return Some(runners.filter_map(|runner| runner.runner.clone()).collect());
    }
    let alive = privileged::alive_slots().ok()?;
    alive.is_empty().then(BTreeSet::new)
}
