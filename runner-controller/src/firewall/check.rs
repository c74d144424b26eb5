//! Is our nftables table loaded, whole, and the one this configuration asks for?
//!
//! What nft lists is compared with what it lists of the same rules in a network namespace that holds
//! nothing else: every chain with its hook, priority and policy, every rule in its order, every
//! element of every set; not the counters' numbers. Asking twice takes 20 ms, so the digest of a
//! listing that was found right is kept beside the report, for the next check to compare with. It is
//! a short cut and no authority: a listing that it does not know is compared in full.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sched::{CloneFlags, unshare};
use sha2::{Digest, Sha256};

use super::report::Report;
use super::rules::{self, FIREWALL_UNIT, TABLE};
use crate::config::Config;
use crate::launch::error::{LaunchError, OrRefuse, Refusal};
use crate::slot_records::write_whole;
use crate::world::chain;

/// Fingerprint and digest of the listing that was last found right.
const KNOWN: &str = "known";

/// Compares, and publishes what it found for the daemon.
pub fn check_firewall(config: &Config) -> Result<(), LaunchError> {
    let found = Check::begin(config).and_then(Check::compare);
    let published = publish(config, found.as_ref().err());
    found.and(published)
}

/// A question to nft that is under way.
pub(crate) struct Check<'a> {
    config: &'a Config,
    nft: Child,
}

impl<'a> Check<'a> {
    /// Asks.
    pub(crate) fn begin(config: &'a Config) -> Result<Self, LaunchError> {
        let nft = list().or_refuse(Refusal::Firewall, || "run nft".into())?;
        Ok(Self { config, nft })
    }

    /// Refuses a start unless the whole table is as configured, and lets the daemon know.
    pub(crate) fn finish(self) -> Result<(), LaunchError> {
        let config = self.config;
        self.compare().inspect_err(|wrong| {
            if let Err(error) = publish(config, Some(wrong)) {
                stdio::error(format_args!("runner-controller: {}", chain(&error)));
            }
        })
    }

    fn compare(self) -> Result<(), LaunchError> {
        let output = self
            .nft
            .wait_with_output()
            .or_refuse(Refusal::Firewall, || "wait for nft".into())?;
        if !output.status.success() {
            return Err(refused(format!(
                "table inet {TABLE} is not loaded; systemctl reload-or-restart {FIREWALL_UNIT} (nft: {})",
                first_line(&output.stderr)
            )));
        }
        let known = known(self.config, &output.stdout);
        let dir = self.config.firewall_dir();
        if is_roots(&dir) && fs::read(dir.join(KNOWN)).is_ok_and(|seen| seen == known.as_bytes()) {
            return Ok(());
        }
        let expected = expected(self.config)?;
        if let Some(difference) = difference(&expected, &output.stdout) {
            return Err(refused(format!(
                "table inet {TABLE} is not as configured ({difference}); \
                 systemctl reload-or-restart {FIREWALL_UNIT}, and after a change of the configuration \
                 `runner-controller units --install-root /` first"
            )));
        }
        // Without it the next check takes longer, and that is all.
        let _ = write_whole(&dir, KNOWN, known.as_bytes());
        Ok(())
    }
}

fn refused(operation: String) -> LaunchError {
    LaunchError::plain(Refusal::Firewall, operation)
}

fn publish(config: &Config, wrong: Option<&LaunchError>) -> Result<(), LaunchError> {
    let dir = config.firewall_dir();
    Report::now(wrong.map(|wrong| chain(wrong)))
        .publish(&dir)
        .or_refuse(Refusal::Records, || {
            format!("publish the firewall's check in {}", dir.display())
        })
}

/// Only what root alone writes is a short cut.
fn is_roots(dir: &Path) -> bool {
    fs::symlink_metadata(dir)
        .is_ok_and(|seen| seen.is_dir() && seen.uid() == 0 && seen.mode() & 0o022 == 0)
}

fn known(config: &Config, listing: &[u8]) -> String {
    let mut text = rules::fingerprint(config);
    text.push_str(" listed ");
    for byte in Sha256::digest(listing) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Asks for the table, its sets' elements included, without the numbers that count.
fn list() -> std::io::Result<Child> {
    Command::new("nft")
        .args(["--stateless", "list", "table", "inet", TABLE])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// What nft lists of the configured rules, loaded where nothing else is.
fn expected(config: &Config) -> Result<Vec<u8>, LaunchError> {
    let rules = rules::table(config);
    // A network namespace is a thread's own, and goes with it.
    let listed = std::thread::scope(|scope| scope.spawn(|| list_apart(&rules)).join());
    let output = listed
        .unwrap_or_else(|_| Err(std::io::Error::other("its thread panicked")))
        .or_refuse(Refusal::Firewall, || {
            "list the configured rules in a namespace of their own".into()
        })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(refused(format!(
        "nft does not take the configured rules: {}",
        first_line(&output.stderr)
    )))
}

fn list_apart(rules: &str) -> std::io::Result<Output> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let mut load = Command::new("nft")
        .args(["--file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = load.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let loaded = load.wait_with_output()?;
    if loaded.status.success() {
        list()?.wait_with_output()
    } else {
        Ok(loaded)
    }
}

fn first_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    said.lines().next().unwrap_or("no message").to_owned()
}

/// The first line that two listings do not share, for a person to look at.
pub(crate) fn difference(expected: &[u8], found: &[u8]) -> Option<String> {
    if expected == found {
        return None;
    }
    let (expected, found) = (
        String::from_utf8_lossy(expected),
        String::from_utf8_lossy(found),
    );
    let (mut expected, mut found) = (expected.lines(), found.lines());
    loop {
        let pair = (expected.next(), found.next());
        let (expected, found) = match pair {
            (Some(expected), Some(found)) if expected == found => continue,
            (None, None) => return Some("in its line ends".into()),
            (expected, found) => (expected, found),
        };
        let show = |line: Option<&str>| {
            let line: String = line.unwrap_or("}").trim().chars().take(120).collect();
            format!("`{line}`")
        };
        return Some(format!(
            "found {} where {} belongs",
            show(found),
            show(expected)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::testing;

    #[test]
    fn the_first_difference_is_shown() {
        assert_eq!(difference(b"a\nb\n", b"a\nb\n"), None);
        for (found, said) in [
            ("a\n c\n", "found `c` where `b` belongs"),
            ("a\n", "found `}` where `b` belongs"),
            ("a\nb\nx\n", "found `x` where `}` belongs"),
            ("a\nb", "in its line ends"),
        ] {
            let difference = difference(b"a\nb\n", found.as_bytes());
            assert_eq!(difference.as_deref(), Some(said));
        }
    }

    #[test]
    fn what_is_known_is_of_one_configuration_and_one_listing() {
        let config = testing::config();
        let mut other = testing::config();
        other.network.resolvers.pop();
        let all = [
            known(&config, b"table"),
            known(&config, b"tabl"),
            known(&other, b"table"),
        ];
        assert!(all.iter().all(|one| one.starts_with("rules ")));
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    }
}
