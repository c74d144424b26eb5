//! The floor: the same image booted by bare systemd-nspawn, in units with our template's properties.
//!
//! The ID-mapped bind of a container's image is made once and beforehand, the overlay is nspawn's, and the link gets
//! no addresses. No program checks, records or sweeps. A container runs the same processes as a spare, down to the
//! runner's unit that waits for a config.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::timeline::millis;
use crate::host::TestHost;
use crate::journal::Span;

/// Pattern of the floor's units.
pub(super) const UNITS: &str = "bench-floor-*.service";
/// Beginning of their names.
const PREFIX: &str = "bench-floor-";
/// Directory of the floor in the host.
const DIR: &str = "/run/bench-floor";
/// Directory of the sockets that all containers of the floor share.
const SOCKETS: &str = "/run/bench-floor/sockets";
/// First host uid of the first container, outside every slot's range.
const UID: u32 = 0x6000_0000;
/// Number of uids of a container.
const UIDS: u32 = 0x1_0000;

/// Bare containers that can be started and stopped. Dropping them removes them from the host.
#[derive(Debug)]
pub(super) struct Floor<'a> {
    host: &'a TestHost,
    /// Names of the units.
    units: Vec<String>,
    /// Socket that is never accepted, so that a container waits as a spare does.
    _socket: UnixListener,
}

impl<'a> Floor<'a> {
    /// Prepares so many containers, and with them everything that is not measured. `template` is the unit file that
    /// gives the properties.
    pub(super) fn prepare(
        host: &'a TestHost,
        image: &str,
        template: &str,
        count: usize,
    ) -> Result<Self> {
        Self::prepare_each(host, &vec![image; count], template)
    }

    /// Prepares a container for each image, like [`Floor::prepare`].
    pub(super) fn prepare_each(
        host: &'a TestHost,
        images: &[&str],
        template: &str,
    ) -> Result<Self> {
        clear(host);
        host.run(&["mkdir", "-p", SOCKETS])?;
        let path = host.path(&format!("{SOCKETS}/jit.sock"));
        let socket = UnixListener::bind(&path).context("cannot create the floor's socket")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        let text = host.run(&["cat", &format!("/etc/systemd/system/{template}")])?;
        ensure!(
            text.contains("\nType=notify\n"),
            "{template} has no Type=notify, which the floor relies on"
        );
        let mut units = Vec::new();
        for (number, image) in (1..).zip(images) {
            let uid = UID + (number - 1) * UIDS;
            host.run(&["mkdir", "-p", &image_dir(number)])?;
            host.run(&[
                "mount",
                "--bind",
                "-o",
                &format!("ro,nodev,X-mount.idmap=b:0:{uid}:{UIDS}"),
                image,
                &image_dir(number),
            ])?;
            let name = format!("{PREFIX}{number}.service");
            host.write(
                &format!("/run/systemd/system/{name}"),
                unit(&text, number, uid, is_minimal(host, image)).as_bytes(),
                0o644,
            )?;
            units.push(name);
        }
        host.run(&["systemctl", "daemon-reload"])?;
        Ok(Self {
            host,
            units,
            _socket: socket,
        })
    }

    /// Starts all containers at once, and returns when all are ready. The journal has the times.
    pub(super) fn start(&self) -> Result<()> {
        self.all("start")
    }

    /// Stops all containers at once, and returns when all are gone. The journal has the times.
    pub(super) fn stop(&self) -> Result<()> {
        self.all("stop")
    }

    /// Starts and stops the containers. The journal has the times.
    pub(super) fn start_and_stop(&self) -> Result<()> {
        self.start()?;
        self.stop()
    }

    /// Stops and starts each container so many times, and all containers beside each other. Returns the whole time.
    pub(super) fn restart(&self, times: usize) -> Result<Duration> {
        let script = format!(
            "for unit in {}; do (for turn in $(seq {times}); do systemctl restart $unit || exit 1; done) & jobs=\"${{jobs-}} $!\"; done\n\
             for job in $jobs; do wait $job; done",
            self.units.join(" ")
        );
        let start = Instant::now();
        self.host.sh(&script)?;
        Ok(start.elapsed())
    }

    /// Returns the names of the units, in the order of the images.
    pub(super) fn units(&self) -> &[String] {
        &self.units
    }

    fn all(&self, verb: &str) -> Result<()> {
        let mut command = vec!["systemctl", verb];
        command.extend(self.units.iter().map(String::as_str));
        self.host.run(&command).map(drop)
    }
}

impl Drop for Floor<'_> {
    fn drop(&mut self) {
        clear(self.host);
    }
}

fn clear(host: &TestHost) {
    // A command fails where there is nothing to clear.
    host.output(&["systemctl", "stop", UNITS]).ok();
    host.sh(&format!(
        "umount {DIR}/image-* || true; rm -rf {DIR} /run/systemd/system/{UNITS}; systemctl daemon-reload"
    ))
    .ok();
}

/// Returns the mount point of a container's ID-mapped image.
fn image_dir(number: u32) -> String {
    format!("{DIR}/image-{number}")
}

/// Returns true if an image boots its runner before the rest of its system.
fn is_minimal(host: &TestHost, image: &str) -> bool {
    let target = format!("{image}/usr/lib/systemd/system/github-runner.target");
    host.run(&["test", "-e", &target]).is_ok()
}

/// Returns the template with a bare container in place of the runner's, and otherwise unchanged.
fn unit(template: &str, number: u32, uid: u32, minimal: bool) -> String {
    let mut text = String::new();
    for line in template.lines() {
        let removed = ["ExecStopPost=", "LogExtraFields=", "SyslogIdentifier="];
        if removed.iter().any(|key| line.starts_with(key)) {
            continue;
        }
        if line.starts_with("ExecStart=") {
            text.push_str(&start(number, uid));
            if minimal {
                text.push_str(" systemd.unit=github-runner.target");
            }
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

/// Returns the start command: our launcher's arguments without those that belong to a slot.
fn start(number: u32, uid: u32) -> String {
    let image = image_dir(number);
    let name = format!("{PREFIX}{number}");
    // A link's name has at most 15 characters (IFNAMSIZ in net/if.h).
    format!(
        "Environment=SYSTEMD_NSPAWN_LOCK=0 SYSTEMD_NSPAWN_TMPFS_TMP=0 SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1\n\
         ExecStart=systemd-nspawn --quiet --settings=no --machine={name} --hostname={name} \
         --directory={image} --volatile=overlay --keep-unit --notify-ready=yes \
         --private-users={uid}:{UIDS} --private-users-ownership=off --rlimit=RLIMIT_NOFILE=1024:65536 \
         --network-veth-extra={name}:host0 --resolv-conf=off --timezone=off --link-journal=no \
         --console=read-only --bind-ro={SOCKETS}:/run/runner --boot \
         systemd.show_status=no systemd.log_level=notice"
    )
}

/// Returns the milliseconds from "Starting" to READY, and from "Stopping" to the end.
pub(super) fn times(spans: &[Span]) -> (Vec<f64>, Vec<f64>) {
    let spans = spans.iter().filter(|span| span.unit.starts_with(PREFIX));
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
        let unit = unit(template, 3, UID, false);
        assert!(
            unit.contains("\nType=notify\n") && unit.contains("\nTasksMax=4096\n"),
            "{unit}"
        );
        assert!(
            unit.contains("\nExecStart=systemd-nspawn ") && !unit.contains("/usr/bin/x"),
            "{unit}"
        );
        assert!(unit.contains("--network-veth-extra=bench-floor-3:host0"));
    }

    #[test]
    fn a_start_without_a_stop_is_not_counted() {
        let whole = Span {
            unit: format!("{PREFIX}1.service"),
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
