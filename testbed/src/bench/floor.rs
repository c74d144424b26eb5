//! The floor: the same image booted by a bare systemd-nspawn, in a unit with our template's properties.
//!
//! Its ID-mapped bind of the image is made once and beforehand, the overlay is nspawn's, and the link gets no
//! addresses. No program checks, records or sweeps. The container runs the same processes as a spare, down to
//! the runner's unit that waits for a config.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, ensure};

use super::timeline::millis;
use crate::host::TestHost;
use crate::journal::Span;

/// Name of the floor's unit.
pub(super) const UNIT: &str = "bench-floor.service";
/// Directory of the floor in the host.
const DIR: &str = "/run/bench-floor";
/// First host uid of the container, outside every slot's range.
const UID: u32 = 0x6000_0000;

/// A bare container that can be started and stopped. Dropping it removes it from the host.
#[derive(Debug)]
pub(super) struct Floor<'a> {
    host: &'a TestHost,
    /// Socket that is never accepted, so that the container waits as a spare does.
    _socket: UnixListener,
}

impl<'a> Floor<'a> {
    /// Prepares everything that is not measured. `template` is the unit file that gives the properties.
    pub(super) fn prepare(host: &'a TestHost, image: &str, template: &str) -> Result<Self> {
        clear(host);
        host.run(&[
            "mkdir",
            "-p",
            &format!("{DIR}/image"),
            &format!("{DIR}/sockets"),
        ])?;
        host.run(&[
            "mount",
            "--bind",
            "-o",
            &format!("ro,nodev,X-mount.idmap=b:0:{UID}:65536"),
            image,
            &format!("{DIR}/image"),
        ])?;
        let path = host.path(&format!("{DIR}/sockets/jit.sock"));
        let socket = UnixListener::bind(&path).context("cannot create the floor's socket")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        let text = host.run(&["cat", &format!("/etc/systemd/system/{template}")])?;
        let unit = unit(&text);
        ensure!(
            unit.contains("\nType=notify\n"),
            "{template} has no Type=notify, which the floor relies on"
        );
        host.write(
            &format!("/run/systemd/system/{UNIT}"),
            unit.as_bytes(),
            0o644,
        )?;
        host.run(&["systemctl", "daemon-reload"])?;
        Ok(Self {
            host,
            _socket: socket,
        })
    }

    /// Starts and stops the container. The journal has the times.
    pub(super) fn start_and_stop(&self) -> Result<()> {
        self.host.run(&["systemctl", "start", UNIT])?;
        self.host.run(&["systemctl", "stop", UNIT]).map(drop)
    }
}

impl Drop for Floor<'_> {
    fn drop(&mut self) {
        clear(self.host);
    }
}

fn clear(host: &TestHost) {
    // A command fails where there is nothing to clear.
    for command in [
        &["systemctl", "stop", UNIT][..],
        &["umount", &format!("{DIR}/image")],
        &["rm", "-rf", DIR, &format!("/run/systemd/system/{UNIT}")],
        &["systemctl", "daemon-reload"],
    ] {
        host.output(command).ok();
    }
}

/// Returns the template with a bare container in place of the runner's, and otherwise unchanged.
fn unit(template: &str) -> String {
    let mut text = String::new();
    for line in template.lines() {
        let removed = [
            "ExecStartPost=",
            "ExecStopPost=",
            "LogExtraFields=",
            "SyslogIdentifier=",
        ];
        if removed.iter().any(|key| line.starts_with(key)) {
            continue;
        }
        if line.starts_with("ExecStart=") {
            text.push_str(&start());
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

/// Returns the start command: our launcher's arguments without those that belong to a slot.
fn start() -> String {
    format!(
        "Environment=SYSTEMD_NSPAWN_LOCK=0 SYSTEMD_NSPAWN_TMPFS_TMP=0 SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1\n\
         ExecStart=systemd-nspawn --quiet --settings=no --machine=bench-floor --hostname=bench-floor \
         --directory={DIR}/image --volatile=overlay --keep-unit --notify-ready=yes \
         --private-users={UID}:65536 --private-users-ownership=off --rlimit=RLIMIT_NOFILE=1024:65536 \
         --network-veth-extra=bench-floor:host0 --resolv-conf=off --timezone=off --link-journal=no \
         --console=read-only --bind-ro={DIR}/sockets:/run/runner --boot \
         systemd.show_status=no systemd.log_level=notice"
    )
}

/// Returns the milliseconds from "Starting" to READY, and from "Stopping" to the end.
pub(super) fn times(spans: &[Span]) -> (Vec<f64>, Vec<f64>) {
    let spans = spans.iter().filter(|span| span.unit == UNIT);
    spans
        .filter_map(|span| {
            let (started, stopping, ended) = (span.started_us?, span.stopping_us?, span.ended_us?);
            Some((millis(started - span.starting_us), millis(ended - stopping)))
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_keeps_the_properties_and_drops_our_programs() {
        let template = "[Service]\nType=notify\nExecStart=/usr/bin/x launch ci %i\nExecStopPost=/usr/bin/x sweep ci %i\nTasksMax=4096\n";
        let unit = unit(template);
        assert!(
            unit.contains("\nType=notify\n") && unit.contains("\nTasksMax=4096\n"),
            "{unit}"
        );
        assert!(
            unit.contains("\nExecStart=systemd-nspawn ") && !unit.contains("/usr/bin/x"),
            "{unit}"
        );
    }

    #[test]
    fn a_start_without_a_stop_is_not_counted() {
        let whole = Span {
            unit: UNIT.into(),
            invocation: "a".into(),
            starting_us: 1000,
            started_us: Some(3000),
            stopping_us: Some(10_000),
            ended_us: Some(10_500),
        };
        let half = Span {
            ended_us: None,
            ..whole.clone()
        };
        assert_eq!(times(&[whole, half]), (vec![2.0], vec![0.5]));
    }
}
