//! Calls of `scripts/fleet.sh`, their arguments, and the secrets that it hides. Every outside program is a
//! stand-in that records its calls.
//!
//! - `secrets`: tokens; `bootstrap`: new hosts;
//! - `deploy`: deployments, reboots and rollbacks; `hosts`: the state of hosts;
//! - `refusals`: commands that are refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bootstrap;
mod deploy;
mod hosts;
mod refusals;
mod secrets;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TOKEN: &str = "github_pat_11AAAAAAA0testtesttesttest";

/// Program that records its name, arguments and input. It fails if the file `fail` names this call.
const STAND_IN: &str = r#"#!/bin/bash
name=${0##*/}
call="$name $*"
echo "$call" >>"$RECORD/calls"
cat >>"$RECORD/$name.stdin"
while IFS= read -r part; do
    case $call in *"$part"*) exit 1 ;; esac
done <"$RECORD/fail"
case $call in
"nix "*) printf 'ssh-ed25519 OPERATOR\nssh-ed25519 HOST' ;;
"age "*) echo "-----BEGIN AGE ENCRYPTED FILE-----" ;;
*"runner-status --json"*) cat "$RECORD/status" ;;
*boot_id*) cat "$RECORD/boots" ;;
*"systemctl reboot"*) echo next >>"$RECORD/boots" ;;
"ssh-keygen "*)
    echo PRIVATE >"${@: -1}"
    echo "ssh-ed25519 FRESH comment" >"${@: -1}.pub"
    ;;
"nixos-anywhere "*)
    # The installed files include the host's key, which only root can read.
    extra=$(sed 's/.*--extra-files \([^ ]*\).*/\1/' <<<"$call")
    stat -c '%a %n' "$extra"/etc/ssh/* "$extra/etc/ssh" >"$RECORD/extra"
    ;;
esac
"#;

struct Fleet {
    dir: tempfile::TempDir,
}

struct Ran {
    ok: bool,
    said: String,
}

impl Fleet {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in [
            "scripts",
            "hosts/runner-01",
            "secrets",
            "bin",
            "record",
            "tmp",
        ] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for script in ["fleet.sh", "storage.sh"] {
            fs::copy(
                project.join("scripts").join(script),
                at("scripts").join(script),
            )
            .unwrap();
        }
        fs::write(
            at("hosts/addresses.json"),
            "{\n  \"runner-01\": \"10.0.0.1\",\n  \"runner-02\": \"10.0.0.2\",\n  \"spare-01\": \"192.0.2.9\"\n}\n",
        )
        .unwrap();
        fs::write(
            at("secrets/secrets.nix"),
            "{\n    runner-01 = \"ssh-ed25519 ONE\";\n    runner-02 = \"ssh-ed25519 TWO\";\n}\n",
        )
        .unwrap();
        fs::write(at("secrets/github-runner.age"), "old").unwrap();
        fs::write(
            at("hosts/operators.nix"),
            "{\n  alice = \"ssh-ed25519 A\";\n}\n",
        )
        .unwrap();
        fs::write(at("record/fail"), "").unwrap();
        fs::write(at("record/calls"), "").unwrap();
        fs::write(at("record/boots"), "first\n").unwrap();
        fs::write(
            at("record/status"),
            "{\"host\":\"x\",\"state\":\"running\"}\n",
        )
        .unwrap();
        fs::write(at("bin/stand-in"), STAND_IN).unwrap();
        fs::set_permissions(at("bin/stand-in"), fs::Permissions::from_mode(0o755)).unwrap();
        for name in [
            "ssh",
            "nix",
            "nixos-rebuild",
            "nixos-anywhere",
            "age",
            "agenix",
            "ssh-keygen",
        ] {
            symlink("stand-in", at("bin").join(name)).unwrap();
        }
        Self { dir }
    }

    /// Returns a fleet of the two hosts with real addresses.
    fn of_two() -> Self {
        let fleet = Self::new();
        fleet.write(
            "hosts/addresses.json",
            "{\n  \"runner-01\": \"10.0.0.1\",\n  \"runner-02\": \"10.0.0.2\"\n}\n",
        );
        fleet
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn calls(&self) -> String {
        self.read("record/calls")
    }

    fn fail(&self, call: &str) {
        self.write("record/fail", &format!("{call}\n"));
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        self.run_in(arguments, input, &[])
    }

    /// Runs the script from another directory, because an operator may be in any, with further variables.
    fn run_in(&self, arguments: &[&str], input: &str, variables: &[(&str, &str)]) -> Ran {
        let mut child = Command::new("bash")
            .arg(self.path("scripts/fleet.sh"))
            .args(arguments)
            .current_dir("/")
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.path("bin").display()),
            )
            .env("RECORD", self.path("record"))
            .env("XDG_RUNTIME_DIR", self.path("tmp"))
            .env("REBOOT_PAUSE", "0")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A script that refuses does not read its input.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ran {
            ok: output.status.success(),
            said: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        }
    }
}

/// Checks that these calls happened in this order; other calls may be between them.
fn assert_order(calls: &str, wanted: &[&str]) {
    let mut rest = calls;
    for call in wanted {
        let at = rest.find(call);
        assert!(
            at.is_some(),
            "{call:?} is missing or too early in:\n{calls}"
        );
        rest = &rest[at.unwrap() + call.len()..];
    }
}
