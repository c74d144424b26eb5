//! Start of a test host: by systemd if it runs the machine, otherwise as a child of this process.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::Process;
use crate::bed::{self, Bed};

/// Maximum time of a boot on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

fn unit(bed: &Bed) -> String {
    format!("{}.service", bed.machine_name())
}

/// Starts the boot helper: by systemd where it runs the machine, so that the host's cgroup is
/// delegated to it properly, otherwise as a child of this process in cgroups that it makes.
pub(super) fn start(
    bed: &Bed,
    program: &Path,
    spec: &Path,
    console: &Path,
    systemd: bool,
) -> Result<Option<Child>> {
    fs::write(console, "")?;
    if systemd {
        let append = format!("append:{}", console.display());
        bed::run(
            Command::new("systemd-run")
                .args(["--quiet", "--collect"])
                .arg(format!("--unit={}", unit(bed)))
                .args([
                    "-p",
                    "Delegate=yes",
                    "-p",
                    "KillMode=mixed",
                    "-p",
                    "TasksMax=infinity",
                ])
                .args([
                    "-p",
                    &format!("StandardOutput={append}"),
                    "-p",
                    &format!("StandardError={append}"),
                ])
                .arg(program)
                .args(["inner", "boot"])
                .arg(spec),
        )?;
        return Ok(None);
    }
    let log = fs::OpenOptions::new().append(true).open(console)?;
    let child = Command::new(program)
        .args(["inner", "boot"])
        .arg(spec)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start the boot helper")?;
    Ok(Some(child))
}

pub(super) fn stop_unit(bed: &Bed) {
    if Path::new("/run/systemd/system").is_dir() {
        Command::new("systemctl")
            .args(["kill", "--signal=KILL", &unit(bed)])
            .stderr(Stdio::null())
            .status()
            .ok();
    }
}

/// Waits for nspawn's word that the host's process 1 has booted, which includes its number.
pub(super) fn await_boot(
    notifications: &UnixDatagram,
    mut child: Option<&mut Child>,
    bed: &Bed,
) -> Result<Process> {
    let start = Instant::now();
    let mut leader = None;
    let mut status = String::from("nothing");
    let mut buffer = [0; 4096];
    loop {
        match notifications.recv(&mut buffer) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                for line in text.lines() {
                    if let Some(pid) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                        leader = Some(Process::find(pid.parse()?)?);
                    }
                    if let Some(said) = line.strip_prefix("STATUS=") {
                        said.clone_into(&mut status);
                    }
                }
                if text.lines().any(|line| line == "READY=1") {
                    return leader.context(
                        "systemd-nspawn reported readiness before it named the host's process 1",
                    );
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error).context("wait for the host's readiness"),
        }
        let ended = match child.as_mut() {
            Some(child) => child.try_wait()?.map(|status| status.to_string()),
            None => unit_ended(bed),
        };
        if let Some(how) = ended {
            bail!("systemd-nspawn ended early: {how}");
        }
        if start.elapsed() > BOOT_LIMIT {
            if let Some(leader) = leader {
                kill(Pid::from_raw(leader.pid), Signal::SIGKILL).ok();
            }
            bail!(
                "no readiness after {}; last status: {status}",
                humantime::format_duration(BOOT_LIMIT)
            );
        }
    }
}

fn unit_ended(bed: &Bed) -> Option<String> {
    let state = bed::run(Command::new("systemctl").args([
        "show",
        "--property=ActiveState",
        "--value",
        &unit(bed),
    ]));
    let state = state.ok()?.trim().to_owned();
    matches!(state.as_str(), "inactive" | "failed").then_some(state)
}

/// Kernel modules that containers use and cannot load. Best effort: many kernels have them built in.
pub(super) fn load_modules() {
    Command::new("modprobe")
        .args([
            "--quiet",
            "--all",
            "overlay",
            "loop",
            "fuse",
            "tun",
            "veth",
            "nf_tables",
            "nft_masq",
            "nft_fib_inet",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok();
}
