//! Commands that are refused before any host is called.

use super::{Fleet, TOKEN};

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
