//! The floor: the same image booted by systemd-nspawn with nothing of ours around it, in a unit
//! with the properties that our template has.
//!
//! It is as bare as it can be: the ID-mapped bind of the image is made once and beforehand, the
//! overlay is nspawn's own, the link gets no addresses, nothing checks, records or sweeps. What
//! runs in the container is the same, down to the runner's unit that waits for a config.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, ensure};

use super::lives::millis;
use crate::host::TestHost;
use crate::journal::Span;

/// The unit.
pub(super) const UNIT: &str = "bench-floor.service";
/// Its directory in the host.
const DIR: &str = "/run/bench-floor";
/// Host uids that no slot has.
const UID: u32 = 0x6000_0000;

/// A bare container that can be started and stopped; gone from the host when it is dropped.
#[derive(Debug)]
pub(super) struct Floor<'a> {
    host: &'a TestHost,
    /// Never accepted: a connection that waits is answered as little as a spare's.
    _socket: UnixListener,
}

impl<'a> Floor<'a> {
    /// Prepares all that need not be measured. `template` is a unit of ours.
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
        let socket = UnixListener::bind(&path).context("make the floor's socket")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        let text = host.run(&["cat", &format!("/etc/systemd/system/{template}")])?;
        let unit = unit(&text);
        ensure!(
            unit.contains("\nType=notify\n"),
            "{template} is not as the floor knows it"
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

    /// One life: returns when it has come and gone. The journal has the times.
    pub(super) fn live(&self) -> Result<()> {
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
    // Each may find nothing to do.
    for command in [
        &["systemctl", "stop", UNIT][..],
        &["umount", &format!("{DIR}/image")],
        &["rm", "-rf", DIR, &format!("/run/systemd/system/{UNIT}")],
        &["systemctl", "daemon-reload"],
    ] {
        host.output(command).ok();
    }
}

/// Our template with a bare container in the place of ours. Everything else of it stays.
fn unit(template: &str) -> String {
    let mut text = String::new();
    for line in template.lines() {
        let ours = [
            "ExecStartPost=",
            "ExecStopPost=",
            "LogExtraFields=",
            "SyslogIdentifier=",
        ];
        if ours.iter().any(|key| line.starts_with(key)) {
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

/// The arguments are those that our launcher gives, less what belongs to a slot.
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

/// Milliseconds from systemd's beginning with the start to READY, and with the stop to nothing.
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
    fn the_floor_keeps_our_properties_and_none_of_our_programs() {
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
    fn a_life_that_was_not_stopped_is_not_counted() {
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
