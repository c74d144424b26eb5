//! Calls of `scripts/fleet.sh`, their arguments, and the secrets that it hides. Every outside program is a
//! stand-in that records its calls.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

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

    /// Runs the script from another directory, because an operator may be in any.
    fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
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

#[test]
fn a_deploy_tells_that_the_runner_comes_from_an_old_input() {
    const DAY_SECS: u64 = 86_400;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let lock = include_str!("../../flake.lock");
    let (before, after) = lock.split_once("\"nixpkgs-runner\": {").unwrap();
    let (key, rest) = after.split_once("\"lastModified\": ").unwrap();
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    for (days, is_told) in [(3, false), (25, false), (27, true)] {
        let fleet = Fleet::of_two();
        let changed = now - days * DAY_SECS;
        fleet.write(
            "flake.lock",
            &format!("{before}\"nixpkgs-runner\": {{{key}\"lastModified\": {changed}{rest}"),
        );
        let ran = fleet.run(&["apply", "runner-01"]);
        assert!(ran.ok, "{}", ran.said);
        let told = format!("{days} days old; run: just bump-runner");
        assert_eq!(ran.said.contains(&told), is_told, "{days}: {}", ran.said);
    }
}

#[test]
fn a_token_is_encrypted_deployed_and_tried_and_is_never_an_argument() {
    let fleet = Fleet::of_two();
    let ran = fleet.run_with(&["set-token", "runner-01"], &format!("{TOKEN}\n"));
    assert!(ran.ok, "{}", ran.said);
    assert_order(
        &fleet.calls(),
        &[
            "nix --extra-experimental-features nix-command eval",
            "age --encrypt --armor --recipient ssh-ed25519 OPERATOR --recipient ssh-ed25519 HOST",
            "nixos-rebuild switch",
            "#runner-01 --target-host root@10.0.0.1",
            "root@10.0.0.1 systemctl restart runner-controller.service",
            "root@10.0.0.1 runner-status --wait",
        ],
    );
    assert_eq!(fleet.read("record/age.stdin"), format!("{TOKEN}\n"));
    assert!(
        fleet
            .read("secrets/github-runner.age")
            .starts_with("-----BEGIN AGE")
    );
    for (place, text) in [
        ("an argument", fleet.calls()),
        (
            "the input of another machine",
            fleet.read("record/ssh.stdin"),
        ),
        ("the output", ran.said.clone()),
    ] {
        assert!(!text.contains(TOKEN), "the token is in {place}: {text}");
    }
    assert!(
        ran.said.contains("the old token: runner-02"),
        "{}",
        ran.said
    );
    // No temporary file is left beside it.
    assert_eq!(fs::read_dir(fleet.path("secrets")).unwrap().count(), 2);
}

#[test]
fn a_token_in_an_argument_causes_a_warning_and_goes_no_further() {
    let fleet = Fleet::of_two();
    let ran = fleet.run(&["set-token", "runner-02", TOKEN]);
    assert!(ran.ok && ran.said.contains("warning"), "{}", ran.said);
    assert!(!fleet.calls().contains(TOKEN), "{}", fleet.calls());
    assert_eq!(fleet.read("record/age.stdin"), format!("{TOKEN}\n"));
}

#[test]
fn a_string_that_is_not_a_token_changes_nothing() {
    for bad in [
        "",
        "short",
        "two words of twenty letters",
        "$(reboot)$(reboot)$(reboot)",
    ] {
        let fleet = Fleet::of_two();
        let ran = fleet.run_with(&["set-token", "runner-01"], &format!("{bad}\n"));
        assert!(
            !ran.ok && ran.said.contains("not a GitHub token"),
            "{bad}: {}",
            ran.said
        );
        assert_eq!(fleet.calls(), "", "{bad}");
        assert_eq!(fleet.read("secrets/github-runner.age"), "old");
    }
}

#[test]
fn a_secret_that_cannot_be_encrypted_or_is_refused_is_an_error() {
    let fleet = Fleet::of_two();
    fleet.fail("age --encrypt");
    let ran = fleet.run_with(&["set-token", "runner-01"], TOKEN);
    assert!(!ran.ok && ran.said.contains("untouched"), "{}", ran.said);
    assert_eq!(fleet.read("secrets/github-runner.age"), "old");
    assert!(
        !fleet.calls().contains("nixos-rebuild"),
        "{}",
        fleet.calls()
    );
    assert_eq!(fs::read_dir(fleet.path("secrets")).unwrap().count(), 2);

    fleet.fail("runner-status --wait");
    let ran = fleet.run_with(&["set-token", "runner-01"], TOKEN);
    assert!(
        !ran.ok && ran.said.contains("does not accept"),
        "{}",
        ran.said
    );
}

#[test]
fn all_hosts_are_deployed_in_sequence() {
    let fleet = Fleet::of_two();
    let ran = fleet.run(&["apply-all", "--max-jobs", "2"]);
    assert!(ran.ok, "{}", ran.said);
    assert_order(
        &fleet.calls(),
        &[
            "#runner-01 --target-host root@10.0.0.1 --use-substitutes --max-jobs 2",
            "root@10.0.0.1 runner-status --wait",
            "#runner-02 --target-host root@10.0.0.2 --use-substitutes --max-jobs 2",
            "root@10.0.0.2 runner-status --wait",
        ],
    );
    assert!(!fleet.calls().contains("drain"), "{}", fleet.calls());
}

#[test]
fn a_host_that_fails_ends_the_deployment() {
    for failing in ["#runner-01", "root@10.0.0.1 runner-status"] {
        let fleet = Fleet::of_two();
        fleet.fail(failing);
        let ran = fleet.run(&["apply-all"]);
        assert!(
            !ran.ok && ran.said.contains("later hosts are untouched"),
            "{}",
            ran.said
        );
        assert!(!fleet.calls().contains("runner-02"), "{}", fleet.calls());
        assert!(!fleet.calls().contains("10.0.0.2"), "{}", fleet.calls());
    }
    // A host that could not be deployed is not asked for its status.
    let fleet = Fleet::of_two();
    fleet.fail("nixos-rebuild");
    assert!(!fleet.run(&["apply", "runner-01"]).ok);
    assert!(
        !fleet.calls().contains("runner-status"),
        "{}",
        fleet.calls()
    );
}

#[test]
fn a_deployment_with_drain_waits_for_jobs_and_takes_jobs_again() {
    let fleet = Fleet::of_two();
    let ran = fleet.run(&["apply-all", "--drain"]);
    assert!(ran.ok, "{}", ran.said);
    assert_order(
        &fleet.calls(),
        &[
            "root@10.0.0.1 runner-controller drain --wait --timeout",
            "nixos-rebuild switch",
            "root@10.0.0.1 runner-controller undrain",
            "root@10.0.0.1 runner-status --wait",
            "root@10.0.0.2 runner-controller drain --wait",
        ],
    );
    let fleet = Fleet::of_two();
    fleet.fail("root@10.0.0.1 runner-controller drain");
    assert!(!fleet.run(&["apply-all", "--drain"]).ok);
    assert!(
        !fleet.calls().contains("nixos-rebuild"),
        "{}",
        fleet.calls()
    );
    // The same holds for one host. If the host stays drained, the message says how to continue.
    let fleet = Fleet::of_two();
    fleet.fail("nixos-rebuild");
    let ran = fleet.run(&["apply", "runner-02", "--drain"]);
    assert!(
        !ran.ok && ran.said.contains("just undrain runner-02"),
        "{}",
        ran.said
    );
    assert!(!fleet.calls().contains(" undrain"), "{}", fleet.calls());
}

#[test]
fn a_deployment_leaves_a_drained_host_drained() {
    for state in ["draining", "drained"] {
        let fleet = Fleet::of_two();
        fleet.write(
            "record/status",
            &format!("{{\n  \"state\": \"{state}\"\n}}\n"),
        );
        let ran = fleet.run(&["apply", "runner-01", "--drain"]);
        assert!(
            ran.ok && ran.said.contains("still drained as before"),
            "{}",
            ran.said
        );
        let calls = fleet.calls();
        assert_order(&calls, &["runner-controller drain", "nixos-rebuild switch"]);
        assert!(!calls.contains(" undrain") && !calls.contains("--wait 5m"));
    }
}

#[test]
fn the_placeholders_key_cannot_lock_an_operator_out() {
    for arguments in [
        &["apply", "runner-01"][..],
        &["apply-all"],
        &["set-token", "runner-01", TOKEN],
        &["bootstrap", "runner-01", "1.2.3.4"],
    ] {
        let fleet = Fleet::of_two();
        fleet.write(
            "hosts/operators.nix",
            "{\n  placeholder = \"ssh-ed25519 A\";\n}\n",
        );
        let ran = fleet.run(arguments);
        assert!(
            !ran.ok && ran.said.contains("hosts/operators.nix"),
            "{arguments:?}: {}",
            ran.said
        );
        assert_eq!(fleet.calls(), "", "{arguments:?}");
    }
}

#[test]
fn a_placeholder_of_the_repository_is_not_deployed() {
    let with_placeholders = || {
        let fleet = Fleet::of_two();
        fleet.write(
            "hosts/placeholders.json",
            "{\n  \"disk\": \"/dev/disk/by-id/main\",\n  \"runner-02\": \"ssh-ed25519 TWO\"\n}\n",
        );
        fleet
    };
    let fleet = with_placeholders();
    let ran = fleet.run(&["apply", "runner-02"]);
    assert!(
        !ran.ok && ran.said.contains("a placeholder for runner-02"),
        "{}",
        ran.said
    );
    assert_eq!(fleet.calls(), "");
    assert!(fleet.run(&["apply", "runner-01"]).ok);

    let fleet = with_placeholders();
    fleet.write(
        "hosts/runner-01/default.nix",
        "import ../disk.nix { device = \"/dev/disk/by-id/main\"; }\n",
    );
    let ran = fleet.run(&["bootstrap", "runner-01", "1.2.3.4"]);
    assert!(
        !ran.ok && ran.said.contains("hosts/runner-01 names a placeholder"),
        "{}",
        ran.said
    );
    assert_eq!(fleet.calls(), "");
}

#[test]
fn the_script_works_on_another_fleet() {
    let fleet = Fleet::new();
    let other = Fleet::of_two();
    let output = Command::new("bash")
        .arg(fleet.path("scripts/fleet.sh"))
        .arg("hosts")
        .env("FLEET_ROOT", other.dir.path())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "runner-01\nrunner-02\n"
    );
}

#[test]
fn a_reboot_drains_first_and_waits_until_jobs_are_taken() {
    let fleet = Fleet::of_two();
    let ran = fleet.run(&["reboot", "runner-01"]);
    // After the reboot, the stand-in prints both boots, which differs from the first.
    assert!(ran.ok, "{}", ran.said);
    assert_order(
        &fleet.calls(),
        &[
            "runner-controller drain --wait",
            "systemctl reboot",
            "systemctl start runner-controller.service",
            "runner-controller undrain",
            "runner-status --wait",
        ],
    );
    fleet.fail("drain --wait");
    fleet.write("record/calls", "");
    assert!(!fleet.run(&["reboot", "runner-01"]).ok);
    assert!(
        !fleet.calls().contains("systemctl reboot"),
        "{}",
        fleet.calls()
    );
}

#[test]
fn a_rollback_switches_the_whole_system() {
    let fleet = Fleet::of_two();
    assert!(fleet.run(&["rollback", "runner-02"]).ok);
    let profile = "/nix/var/nix/profiles/system";
    assert_order(
        &fleet.calls(),
        &[
            &format!("root@10.0.0.2 nix-env --profile {profile} --rollback"),
            &format!("root@10.0.0.2 {profile}/bin/switch-to-configuration switch"),
            "root@10.0.0.2 runner-status --wait",
        ],
    );
}

#[test]
fn a_new_host_gets_a_key_that_opens_the_secret_before_it_is_installed() {
    for address in ["1.2.3.4", "IP=1.2.3.4"] {
        let fleet = Fleet::new();
        let ran = fleet.run(&["bootstrap", "runner-01", address]);
        assert!(ran.ok, "{}", ran.said);
        assert_order(
            &fleet.calls(),
            &["ssh-keygen", "agenix --rekey", "nixos-anywhere"],
        );
        assert!(
            fleet.calls().contains("--target-host root@1.2.3.4"),
            "{}",
            fleet.calls()
        );
        let rules = fleet.read("secrets/secrets.nix");
        assert!(
            rules.contains("runner-01 = \"ssh-ed25519 FRESH\";"),
            "{rules}"
        );
        assert!(
            rules.contains("runner-02 = \"ssh-ed25519 TWO\";"),
            "{rules}"
        );
        assert!(
            fleet
                .read("hosts/addresses.json")
                .contains("\"runner-01\": \"1.2.3.4\",")
        );
        let extra = fleet.read("record/extra");
        assert!(extra.contains("ssh_host_ed25519_key"), "{extra}");
        assert!(
            extra
                .lines()
                .any(|line| line.starts_with("755 ") && line.ends_with("/etc/ssh")),
            "{extra}"
        );
        assert_eq!(
            fs::read_dir(fleet.path("tmp")).unwrap().count(),
            0,
            "a key is left"
        );
    }
}

#[test]
fn an_operator_who_cannot_open_the_secrets_enters_the_token_again() {
    let fleet = Fleet::new();
    fleet.fail("agenix --rekey");
    let ran = fleet.run_with(&["bootstrap", "runner-01", "1.2.3.4"], TOKEN);
    assert!(ran.ok, "{}", ran.said);
    assert_order(
        &fleet.calls(),
        &["agenix --rekey", "age --encrypt", "nixos-anywhere"],
    );
    assert!(!fleet.calls().contains(TOKEN));
}

#[test]
fn an_unknown_host_or_address_is_refused_before_any_call() {
    for arguments in [
        vec!["apply", "runner-09"],
        vec!["apply", ".*"],
        vec!["set-token", "runner-09", TOKEN],
        // Its address is reserved for documentation (RFC 5737).
        vec!["apply", "spare-01"],
        vec!["bootstrap", "runner-01"],
        vec!["bootstrap", "runner-01", "IP="],
        vec!["bootstrap", "runner-01", "-oProxyCommand=x"],
        vec!["bootstrap", "runner-01", "1.2.3.4;reboot"],
        vec!["bootstrap", "runner-09", "1.2.3.4"],
        vec!["explode"],
        vec![],
    ] {
        let fleet = Fleet::new();
        let ran = fleet.run(&arguments);
        assert!(
            !ran.ok && ran.said.contains("error: "),
            "{arguments:?}: {}",
            ran.said
        );
        assert_eq!(fleet.calls(), "", "{arguments:?}");
    }
}

#[test]
fn a_host_that_does_not_answer_does_not_hide_others() {
    for command in ["status-all", "storage-all"] {
        let fleet = Fleet::of_two();
        fleet.fail("root@10.0.0.1");
        let ran = fleet.run(&[command]);
        assert!(
            !ran.ok && ran.said.contains("cannot get an answer from: runner-01"),
            "{}",
            ran.said
        );
        assert!(fleet.calls().contains("root@10.0.0.2"), "{}", fleet.calls());
    }
    let fleet = Fleet::of_two();
    assert!(fleet.run(&["storage-all"]).ok);
    assert!(fleet.read("record/ssh.stdin").contains("/var/lib/docker"));
}

#[test]
fn words_reach_a_host_unchanged() {
    let fleet = Fleet::of_two();
    assert!(fleet.run(&["logs", "runner-01", "ci-3", "--follow"]).ok);
    assert!(fleet.run(&["logs", "runner-01", "ci-3; reboot"]).ok);
    assert!(
        fleet
            .run(&["logs", "runner-02", "controller", "-n", "5"])
            .ok
    );
    assert_order(
        &fleet.calls(),
        &[
            "root@10.0.0.1 runner-logs ci-3 --follow",
            r"root@10.0.0.1 runner-logs ci-3\;\ reboot",
            "root@10.0.0.2 journalctl --unit=runner-controller -n 5",
        ],
    );
}
