//! Deployments, reboots and rollbacks, of one host or of all.

use std::time::SystemTime;

use super::{Fleet, assert_order};

#[test]
fn a_deploy_tells_that_the_runner_comes_from_an_old_input() {
    const DAY_SECS: u64 = 86_400;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let lock = include_str!("../../../flake.lock");
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
