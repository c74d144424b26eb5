//! `systemd-analyze verify` of the units that we print or install into an image.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::binaries::CONTROLLER;
use crate::config::{Config, IMAGE};
use crate::lab::{CONFIG, DAEMON, Lab};

/// Checks every unit that our commands make, by the systemd that will run it.
pub(crate) fn units_are_accepted(lab: &Lab) -> Result<()> {
    let host = lab.host();
    lab.install(&Config::small(lab.sim().api_url()).with("ci", |pool| pool.layer = "disk"))?;
    let printed = "/run/printed-units";
    host.run(&["rm", "-rf", printed])?;
    host.run(&[
        CONTROLLER,
        "units",
        "--config",
        CONFIG,
        "--install-root",
        printed,
    ])?;
    let mut units = unit_files(&host.path(printed))?;
    for unit in &mut units {
        // A template is judged by an instance of it.
        *unit = unit.replace("@.", "@1.");
    }
    if !units.iter().any(|unit| unit == DAEMON) {
        bail!("no {DAEMON} among the printed units: {}", units.join(" "));
    }
    analyze(lab, &units)?;
    // The image's own units, against the image's root.
    let guest = [
        "systemd-analyze",
        "verify",
        "--man=no",
        "--recursive-errors=one",
        "--root",
        IMAGE,
    ];
    run(lab, &guest, &["github-runner.service".to_owned()])
}

/// Lets the host's systemd judge units that it has. A template is judged by an instance of it.
pub(crate) fn analyze(lab: &Lab, units: &[String]) -> Result<()> {
    let command = [
        "systemd-analyze",
        "verify",
        "--man=no",
        "--recursive-errors=one",
    ];
    run(lab, &command, units)
}

fn run(lab: &Lab, command: &[&str], units: &[String]) -> Result<()> {
    let mut argv: Vec<&str> = command.to_vec();
    argv.extend(units.iter().map(String::as_str));
    let output = lab.host().output(&argv)?;
    let said = String::from_utf8_lossy(&output.stderr);
    // Its exit status forgives what it only warns about, an unknown key for one.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("runner"))
        .collect();
    if !output.status.success() || !ours.is_empty() {
        bail!("{}: {}\n{said}", argv.join(" "), output.status);
    }
    Ok(())
}

fn unit_files(root: &std::path::Path) -> Result<Vec<String>> {
    const KINDS: &[&str] = &[
        "service", "slice", "socket", "timer", "target", "mount", "path",
    ];
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                dirs.push(path);
            } else if path
                .extension()
                .is_some_and(|kind| KINDS.iter().any(|known| kind == *known))
            {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}
