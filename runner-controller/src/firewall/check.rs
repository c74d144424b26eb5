//! The comparison of the loaded table with the configuration.
//!
//! nft lists the loaded table. It also lists the configured rules, loaded in a network namespace that
//! has no other rules. The two listings must be equal: every chain with its hook, priority and policy,
//! every rule in its order, every element of every set. The listings leave out counters' values.
//!
//! The second listing takes 20 ms. Therefore the digest of the last correct listing is kept beside the
//! report. It only saves time: a listing with another digest is compared in full.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sched::{CloneFlags, unshare};
use sha2::{Digest, Sha256};

use super::report::FirewallReport;
use super::rules::{self, FIREWALL_UNIT, TABLE};
use crate::atomic_file;
use crate::config::Config;
use crate::launch::error::{LaunchError, OrRefuse, Refusal};
use crate::world::chain;

/// File with the fingerprint of the rules and the digest of the last correct listing.
const KNOWN_FILE: &str = "known";

/// Compares the loaded table with the configuration, and publishes the result for the daemon.
pub fn check_firewall(config: &Config) -> Result<(), LaunchError> {
    let found = PendingCheck::begin(config).and_then(PendingCheck::compare);
    let published = publish(config, found.as_ref().err());
    found.and(published)
}

/// A check whose listing nft is preparing.
pub(crate) struct PendingCheck<'a> {
    config: &'a Config,
    nft: Child,
}

impl<'a> PendingCheck<'a> {
    /// Starts nft, and returns before nft has answered.
    pub(crate) fn begin(config: &'a Config) -> Result<Self, LaunchError> {
        let nft = list().or_refuse(Refusal::Firewall, || "run nft".into())?;
        Ok(Self { config, nft })
    }

    /// Refuses a start unless the loaded table is as configured, and publishes a difference for the
    /// daemon.
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
                "table inet {TABLE} is not loaded (nft: {}); systemctl reload-or-restart {FIREWALL_UNIT}",
                first_line(&output.stderr)
            )));
        }
        let known = known(self.config, &output.stdout);
        let dir = self.config.firewall_dir();
        if only_root_writes(&dir)
            && fs::read(dir.join(KNOWN_FILE)).is_ok_and(|seen| seen == known.as_bytes())
        {
            return Ok(());
        }
        let expected = expected(self.config)?;
        if let Some(difference) = difference(&expected, &output.stdout) {
            return Err(refused(format!(
                "table inet {TABLE} is not as configured ({difference}); \
                 systemctl reload-or-restart {FIREWALL_UNIT}; after a change of the configuration \
                 run `runner-controller units --install-root /` first"
            )));
        }
        // A failure costs time at the next check and nothing else.
        let _ = atomic_file::replace(&dir.join(KNOWN_FILE), known.as_bytes(), 0o644);
        Ok(())
    }
}

fn refused(operation: String) -> LaunchError {
    LaunchError::plain(Refusal::Firewall, operation)
}

fn publish(config: &Config, wrong: Option<&LaunchError>) -> Result<(), LaunchError> {
    let dir = config.firewall_dir();
    FirewallReport::now(wrong.map(|wrong| chain(wrong)))
        .publish(&dir)
        .or_refuse(Refusal::Records, || {
            format!("write the firewall report to {}", dir.display())
        })
}

/// Returns true if only root can have written the digest in this directory.
fn only_root_writes(dir: &Path) -> bool {
    fs::symlink_metadata(dir)
        .is_ok_and(|seen| seen.is_dir() && seen.uid() == 0 && seen.mode() & 0o022 == 0)
}

fn known(config: &Config, listing: &[u8]) -> String {
    let fingerprint = rules::fingerprint(config);
    format!("{fingerprint} listed {:x}", Sha256::digest(listing))
}

/// Starts nft, which lists the table and its sets' elements without counters' values.
fn list() -> std::io::Result<Child> {
    Command::new("nft")
        .args(["--stateless", "list", "table", "inet", TABLE])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Returns nft's listing of the configured rules, loaded in a network namespace without other rules.
fn expected(config: &Config) -> Result<Vec<u8>, LaunchError> {
    let rules = rules::table(config);
    // Only this thread is in the new network namespace, which ends with the thread.
    let listed = std::thread::scope(|scope| scope.spawn(|| list_apart(&rules)).join());
    let output = listed
        .unwrap_or_else(|_| Err(std::io::Error::other("the thread panicked")))
        .or_refuse(Refusal::Firewall, || {
            "list the configured rules in a separate network namespace".into()
        })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(refused(format!(
        "nft refuses the configured rules: {}",
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

fn first_line(output: &[u8]) -> String {
    let output = String::from_utf8_lossy(output);
    output.lines().next().unwrap_or("no message").to_owned()
}

/// Returns the first line in which two listings differ, for the operator.
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
            (None, None) => return Some("the line ends differ".into()),
            (expected, found) => (expected, found),
        };
        let show = |line: Option<&str>| {
            let line: String = line.unwrap_or("}").trim().chars().take(120).collect();
            format!("`{line}`")
        };
        return Some(format!(
            "found {}, expected {}",
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
        for (found, shown) in [
            ("a\n c\n", "found `c`, expected `b`"),
            ("a\n", "found `}`, expected `b`"),
            ("a\nb\nx\n", "found `x`, expected `}`"),
            ("a\nb", "the line ends differ"),
        ] {
            let difference = difference(b"a\nb\n", found.as_bytes());
            assert_eq!(difference.as_deref(), Some(shown));
        }
    }

    #[test]
    fn a_known_digest_is_of_one_configuration_and_one_listing() {
        let config = testing::config();
        let mut other = testing::config();
        other.network.resolvers.pop();
        let all = [
            known(&config, b"table"),
            known(&config, b"tabl"),
            known(&other, b"table"),
        ];
        assert!(all.iter().all(|known| known.starts_with("rules ")));
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    }
}
