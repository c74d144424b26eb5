//! Commands that ask hosts for their state.

use std::process::Command;

use super::{Fleet, assert_order};

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
fn a_host_that_does_not_answer_does_not_hide_others() {
    for command in ["status-all", "storage-all"] {
        let fleet = Fleet::of_two();
        fleet.fail("root@10.0.0.1");
        let ran = fleet.run(&[command]);
        assert!(
            !ran.ok
                && ran
                    .said
                    .contains("these hosts have a problem or do not answer: runner-01"),
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

#[test]
fn a_test_of_the_webhook_is_a_dry_run_unless_it_is_meant() {
    let fleet = Fleet::of_two();
    let test = ["test-webhook", "runner-01", "--labels", "fuzz-a"];
    assert!(fleet.run(&test).ok);
    let with = |dry_run: &str| fleet.run_in(&test, "", &[("DRY_RUN", dry_run)]);
    assert!(with("false").ok);
    let refused = with("no");
    assert!(
        !refused.ok && refused.said.contains("DRY_RUN"),
        "{}",
        refused.said
    );
    assert_order(
        &fleet.calls(),
        &[
            "root@10.0.0.1 runner-controller webhook-test --labels fuzz-a",
            "root@10.0.0.1 runner-controller webhook-test --send --labels fuzz-a",
        ],
    );
    assert_eq!(fleet.calls().matches("webhook-test").count(), 2);
}
