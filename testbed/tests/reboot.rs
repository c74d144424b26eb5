//! Cases in which `nix/module/reboot.sh` reboots a host. The programs that it calls are stand-ins, and
//! the systems are directories with links.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Program that records its name and arguments. The file `state` has the host's state, and the file
/// `drain` the exit status of a drain.
const STAND_IN: &str = r#"#!/bin/bash
echo "${0##*/} $*" >>"$RECORD/calls"
case "${0##*/} $*" in
"runner-status --json") printf '{"state":"%s"}\n' "$(cat "$RECORD/state")" ;;
"runner-controller drain"*)
    drain=$(cat "$RECORD/drain")
    # systemd stops the script and its commands.
    [ "$drain" != 143 ] || kill "$PPID"
    exit "$drain"
    ;;
"jq -r .state") sed 's/.*:"//; s/".*//' ;;
esac
"#;

struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    /// Returns a host in a state, on which a drain exits with 0 (no job runs) or 1 (jobs still run), or
    /// is stopped together with the script (143).
    fn new(state: &str, drain: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Self { dir };
        for name in ["bin", "record", "booted", "wanted"] {
            fs::create_dir(host.path(name)).unwrap();
        }
        for part in ["kernel", "kernel-modules", "initrd", "systemd"] {
            symlink("/dev/null", host.path("booted").join(part)).unwrap();
            symlink("/dev/null", host.path("wanted").join(part)).unwrap();
        }
        fs::write(host.path("record/state"), state).unwrap();
        fs::write(host.path("record/drain"), drain.to_string()).unwrap();
        for name in ["runner-status", "runner-controller", "systemctl", "jq"] {
            let path = host.path("bin").join(name);
            fs::write(&path, STAND_IN).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        host
    }

    fn with_a_new(self, part: &str) -> Self {
        let link = self.path("wanted").join(part);
        fs::remove_file(&link).unwrap();
        symlink("/dev/zero", link).unwrap();
        self
    }

    fn without(self, part: &str) -> Self {
        for system in ["booted", "wanted"] {
            fs::remove_file(self.path(system).join(part)).unwrap();
        }
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the script. Returns its success, and its calls in lines.
    fn run(&self) -> (bool, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nix/module/reboot.sh");
        let ended = Command::new("bash")
            .arg(script)
            .args([self.path("booted"), self.path("wanted")])
            .arg("6h")
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.path("bin").display()),
            )
            .env("RECORD", self.path("record"))
            .status()
            .unwrap();
        let calls = fs::read_to_string(self.path("record/calls")).unwrap_or_default();
        (ended.success(), calls)
    }
}

const DRAIN: &str = "runner-controller drain --wait --timeout 6h\n";

#[test]
fn a_host_that_is_as_deployed_is_left_alone() {
    let host = Host::new("running", 0);
    assert_eq!(host.run(), (true, String::new()));
}

#[test]
fn a_part_that_only_a_reboot_changes_is_booted_after_a_drain() {
    for part in ["kernel", "kernel-modules", "initrd", "systemd"] {
        let host = Host::new("running", 0).with_a_new(part);
        let (ok, calls) = host.run();
        assert!(ok && calls.ends_with(&format!("{DRAIN}systemctl reboot\n")));
    }
}

#[test]
fn a_host_with_running_jobs_takes_jobs_again_and_is_not_rebooted() {
    let host = Host::new("running", 1).with_a_new("kernel");
    let (ok, calls) = host.run();
    assert!(ok && calls.ends_with(&format!("{DRAIN}runner-controller undrain\n")));
    assert!(!calls.contains("systemctl"), "{calls}");
}

#[test]
fn a_drain_by_an_operator_is_not_ended() {
    let host = Host::new("drained", 0).with_a_new("kernel");
    let (ok, calls) = host.run();
    assert!(ok && calls.ends_with(&format!("{DRAIN}systemctl reboot\n")));

    let host = Host::new("draining", 1).with_a_new("kernel");
    let (ok, calls) = host.run();
    assert!(ok && calls.ends_with(DRAIN), "{calls}");
}

#[test]
fn a_stopped_reboot_does_not_leave_the_host_drained() {
    let host = Host::new("running", 143).with_a_new("kernel");
    let (ok, calls) = host.run();
    assert!(ok && calls.ends_with(&format!("{DRAIN}runner-controller undrain\n")));

    let host = Host::new("drained", 143).with_a_new("kernel");
    let (ok, calls) = host.run();
    assert!(ok && calls.ends_with(DRAIN), "{calls}");
}

#[test]
fn a_missing_system_does_not_cause_a_reboot() {
    let host = Host::new("running", 0);
    fs::remove_dir_all(host.path("booted")).unwrap();
    assert_eq!(host.run(), (false, String::new()));
}

#[test]
fn a_part_that_both_systems_lack_does_not_cause_a_reboot() {
    let host = Host::new("running", 0).without("kernel-modules");
    assert_eq!(host.run(), (true, String::new()));
}
