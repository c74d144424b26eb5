//! The host files, the units of the daemon and of the firewall, and the daemon's own account.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::finding::{Finding, Fix};
use crate::config::Config;
use crate::firewall::FIREWALL_UNIT;
use crate::hostfiles::{self, MOUNTS_SOCKET};
use crate::http::client::ClientError;
use crate::status::{DaemonState, Status};
use crate::view::{Weight, notices, versions};
use crate::world::chain;

/// Unit of the daemon.
const DAEMON_UNIT: &str = "runner-controller.service";
/// Maximum number of files in a text.
const SHOWN: usize = 4;

/// Returns the program that the installed unit of the daemon starts.
pub(super) fn installed_program() -> Option<PathBuf> {
    let unit = Path::new("/etc/systemd/system").join(DAEMON_UNIT);
    let text = std::fs::read_to_string(unit).ok()?;
    program_of(&text)
}

fn program_of(unit: &str) -> Option<PathBuf> {
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))?;
    start.split_whitespace().next().map(PathBuf::from)
}

/// Compares the host files with the configuration. On NixOS they are part of the system.
pub(super) fn check_host_files(config: &Config, config_path: &Path, is_nixos: bool) -> Finding {
    let area = "host files";
    if is_nixos {
        return Finding::skipped(area, "they are part of the NixOS system");
    }
    let Some(program) = installed_program() else {
        return Finding::problem(
            area,
            format!("{DAEMON_UNIT} is not installed, so no daemon starts"),
            "run `runner-controller apply`",
        )
        .fixed_by(Fix::Apply);
    };
    let Ok(config_path) = std::path::absolute(config_path) else {
        return Finding::skipped(
            area,
            "the path of the configuration cannot be made absolute",
        );
    };
    let files = hostfiles::render(config, &program, &config_path);
    match hostfiles::differing(&files, Path::new("/")) {
        Ok(differing) => judge_host_files(&program, program.exists(), &differing),
        Err(error) => Finding::skipped(area, error.to_string()),
    }
}

fn judge_host_files(program: &Path, program_exists: bool, differing: &[PathBuf]) -> Finding {
    let area = "host files";
    let program = program.display();
    if !program_exists {
        return Finding::problem(
            area,
            format!("the units start {program}, which does not exist"),
            "install the program there, or run `runner-controller apply` of the installed one",
        );
    }
    if differing.is_empty() {
        return Finding::good(area, format!("as configured, for {program}"));
    }
    let first = differing.iter().take(SHOWN);
    let first: Vec<String> = first.map(|path| path.display().to_string()).collect();
    let more = match differing.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Finding::problem(
        area,
        format!(
            "{}{more} differ from the configuration: it or the program changed, or an operator edited them",
            first.join(", ")
        ),
        "run `runner-controller apply`; own settings belong in drop-ins beside the units",
    )
    .fixed_by(Fix::Apply)
}

/// Properties of a unit, as systemctl shows them.
type Properties = BTreeMap<String, String>;

/// Checks the units of the daemon and of the firewall, and the socket of the holder of mounts.
pub(super) fn check_units(is_nixos: bool) -> Vec<Finding> {
    let units = [DAEMON_UNIT, FIREWALL_UNIT, MOUNTS_SOCKET].into_iter();
    units
        .flat_map(|unit| match properties(unit) {
            Ok(shown) if unit == MOUNTS_SOCKET => vec![judge_mounts_socket(&shown)],
            Ok(shown) => judge_unit(unit, &shown, is_nixos),
            Err(reason) => vec![Finding::skipped("units", reason)],
        })
        .collect()
}

/// Judges the socket of the holder of mounts. Runners start and end without it, only slower.
fn judge_mounts_socket(shown: &Properties) -> Finding {
    let area = "units";
    match shown.get("ActiveState").map(String::as_str) {
        Some("active") => Finding::good(area, format!("{MOUNTS_SOCKET} is active")),
        state => Finding::warning(
            area,
            format!(
                "{MOUNTS_SOCKET} is {}, so a slot waits until the kernel has freed the files of its last runner",
                state.unwrap_or("unknown")
            ),
            format!("run `systemctl start {MOUNTS_SOCKET}`; `runner-controller apply` installs it"),
        ),
    }
}

fn properties(unit: &str) -> Result<Properties, String> {
    let output = Command::new("systemctl")
        .args(["show", unit, "--property"])
        .arg("LoadState,ActiveState,SubState,Result,NRestarts,NeedDaemonReload,UnitFileState")
        .output()
        .map_err(|error| format!("cannot run systemctl: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cannot ask systemd about {unit}: {}", said.trim()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

fn judge_unit(unit: &str, shown: &Properties, is_nixos: bool) -> Vec<Finding> {
    let area = "units";
    let value = |key: &str| shown.get(key).map(String::as_str).unwrap_or_default();
    let state = value("ActiveState");
    if value("LoadState") == "not-found" {
        let found = Finding::problem(
            area,
            format!("systemd does not know {unit}"),
            "run `runner-controller apply`; on NixOS, `nixos-rebuild switch`",
        );
        return vec![if is_nixos {
            found
        } else {
            found.fixed_by(Fix::Apply)
        }];
    }
    let mut findings = Vec::new();
    if state == "active" {
        findings.push(Finding::good(area, format!("{unit} is active")));
    } else {
        findings.push(Finding::problem(
            area,
            format!("{unit} is {state} (result {})", value("Result")),
            format!("read `journalctl -u {unit} -n 20`, then run `systemctl start {unit}`"),
        ));
    }
    if value("NeedDaemonReload") == "yes" {
        let found = Finding::warning(
            area,
            format!("the files of {unit} changed after systemd read them"),
            "run `systemctl daemon-reload`",
        );
        findings.push(found.fixed_by(Fix::ReloadUnits));
    }
    if value("UnitFileState") == "disabled" {
        findings.push(Finding::warning(
            area,
            format!("{unit} is disabled, so it does not start with the host"),
            format!("run `systemctl enable {unit}`"),
        ));
    }
    let restarts: u32 = value("NRestarts").parse().unwrap_or_default();
    if restarts > 0 {
        findings.push(Finding::note(
            area,
            format!("systemd restarted {unit} {restarts} times after failures; see `journalctl -u {unit}`"),
        ));
    }
    findings
}

/// Judges the daemon's account of the host.
pub(super) fn judge_daemon(answer: &Result<Status, ClientError>) -> Vec<Finding> {
    let area = "daemon";
    let status = match answer {
        Ok(status) => status,
        Err(error) => {
            return vec![Finding::problem(
                area,
                chain(error),
                format!("read `journalctl -u {DAEMON_UNIT} -n 20`"),
            )];
        }
    };
    let mut findings = Vec::new();
    for notice in notices(status) {
        match notice.weight {
            // Each text has its remedy, as in the status.
            Weight::Problem => {
                findings.push(Finding::problem(area, notice.text, "").without_hint());
            }
            Weight::Closed => findings.push(Finding::note(area, notice.text)),
            Weight::Fact => {}
        }
    }
    let versions = versions(status).into_iter();
    let fresh = versions.filter(|notice| notice.weight == Weight::Fact);
    findings.extend(fresh.map(|notice| Finding::note("runner versions", notice.text)));
    if status.state == DaemonState::Observing {
        let text = "the configuration has mode = \"observe\", so no runner starts";
        findings.push(Finding::note(area, text));
    } else if status.state != DaemonState::Running {
        let text = format!("the host is {}, so no runner starts", status.state);
        findings.push(Finding::warning(
            area,
            text,
            "run `runner-controller undrain`",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::good(area, "answers, and tells no problem"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn shown(pairs: &[(&str, &str)]) -> Properties {
        let good = [
            ("LoadState", "loaded"),
            ("ActiveState", "active"),
            ("UnitFileState", "enabled"),
        ];
        let pairs = good.iter().chain(pairs);
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_unit_is_judged_by_its_properties() {
        let levels = |pairs: &[(&str, &str)]| -> Vec<Level> {
            let found = judge_unit(DAEMON_UNIT, &shown(pairs), false);
            found.iter().map(|found| found.level).collect()
        };
        assert_eq!(levels(&[]), [Level::Good]);
        assert_eq!(levels(&[("ActiveState", "failed")]), [Level::Problem]);
        assert_eq!(levels(&[("LoadState", "not-found")]), [Level::Problem]);
        assert_eq!(
            levels(&[("NeedDaemonReload", "yes")]),
            [Level::Good, Level::Warning]
        );
        assert_eq!(
            levels(&[("UnitFileState", "disabled")]),
            [Level::Good, Level::Warning]
        );
        assert_eq!(levels(&[("NRestarts", "3")]), [Level::Good, Level::Note]);
        let missing = shown(&[("LoadState", "not-found")]);
        assert_eq!(judge_unit(DAEMON_UNIT, &missing, true)[0].fix, None);
        assert_eq!(
            judge_unit(DAEMON_UNIT, &missing, false)[0].fix,
            Some(Fix::Apply)
        );
    }

    #[test]
    fn a_host_without_the_holder_of_mounts_works_with_a_warning() {
        let level = |state| judge_mounts_socket(&shown(&[("ActiveState", state)])).level;
        assert_eq!(level("active"), Level::Good);
        assert_eq!(level("failed"), Level::Warning);
        assert_eq!(level("inactive"), Level::Warning);
    }

    #[test]
    fn files_that_differ_are_named_and_bounded() {
        let program = Path::new("/usr/bin/rc");
        assert_eq!(judge_host_files(program, true, &[]).level, Level::Good);
        assert_eq!(judge_host_files(program, false, &[]).fix, None);
        let differing: Vec<PathBuf> = (0..6).map(|n| format!("/etc/{n}").into()).collect();
        let found = judge_host_files(program, true, &differing);
        assert!(
            found
                .text
                .starts_with("/etc/0, /etc/1, /etc/2, /etc/3 and 2 more"),
            "{found:?}"
        );
        assert_eq!(found.fix, Some(Fix::Apply));
    }

    #[test]
    fn the_program_of_a_unit_is_the_first_word_of_its_start() {
        let unit = "[Service]\nExecStartPre=+/bin/x\nExecStart=/usr/bin/rc --config /c run\n";
        assert_eq!(program_of(unit).unwrap(), Path::new("/usr/bin/rc"));
        assert_eq!(program_of("[Service]\n"), None);
    }

    #[test]
    fn the_daemons_problems_are_findings_and_a_drain_a_warning() {
        let mut status = Status {
            state: DaemonState::Drained,
            ..Status::default()
        };
        let found = judge_daemon(&Ok(status.clone()));
        assert!(
            found.iter().any(|found| found.level == Level::Warning),
            "{found:?}"
        );
        status.systemd_error = Some("no bus".into());
        let found = judge_daemon(&Ok(status));
        assert_eq!(
            (found[0].level, found[0].text.as_str()),
            (Level::Problem, "systemd: no bus")
        );
        let silent = judge_daemon(&Err(ClientError::Silent));
        assert_eq!(silent[0].level, Level::Problem);
    }
}
