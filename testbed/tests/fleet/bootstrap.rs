//! The installation of a new host, which gets a key that opens the secrets.

use std::fs;

use super::{Fleet, TOKEN, assert_order};

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
