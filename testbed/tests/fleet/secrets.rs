//! Tokens: an operator enters one, and it is encrypted, deployed and tried.

use std::fs;

use super::{Fleet, TOKEN, assert_order};

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
