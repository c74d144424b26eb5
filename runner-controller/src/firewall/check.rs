//! Comparison of the loaded table with the rules.
//!
//! nft lists the loaded table, and it lists the rules as loaded in an otherwise empty network namespace.
//! The two listings must be equal: every chain with its hook, priority and policy, every rule in its
//! order, every element of every set, but not the numbers of counters. The second listing takes
//! 20 ms, so the digest of a good listing is kept beside the report. The digest only saves time: an unknown
//! listing is compared in full.
//!
//! A listing takes nft about 5 ms, and more with each slot. So the generation of the kernel's rules is kept with a
//! good comparison, and a start needs no listing while no program has changed a rule of the host. The owner lists every
//! time.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::error::FirewallError;
use super::loaded::{Loaded, is_roots};
use super::nft::{self, Listing};
use super::report::FirewallReport;
use super::rules::{fingerprint, table};
use super::ruleset::Ruleset;
use super::{FIREWALL_UNIT, TABLE, forwarding};
use crate::atomic_file;
use crate::config::Config;
use crate::world::chain;

/// File with the fingerprint and the digest of the last good listing.
const KNOWN: &str = "known";
/// File with the fingerprint and the generation of the kernel's rules at the last good comparison.
const UNCHANGED: &str = "unchanged";
/// Time within which the owner has replaced a table, or a restarted owner has taken it over.
const PATIENCE: Duration = Duration::from_secs(2);
/// Interval between two comparisons within that time.
const AGAIN: Duration = Duration::from_millis(100);

/// Compares the table with the rules, looks for other obstacles on a packet's way, and publishes the result
/// for the daemon.
pub fn check(config: &Config) -> Result<(), FirewallError> {
    let found = inspect(config);
    let published = publish(config, found.as_ref().err().map(|error| chain(error)), None);
    found.and(published)
}

/// Compares the table with the rules and looks for other obstacles, and publishes nothing.
pub fn inspect(config: &Config) -> Result<(), FirewallError> {
    Check::begin(config).and_then(Check::compare)?;
    match forwarding::obstacle(config)? {
        Some(obstacle) => Err(obstacle.into()),
        None => Ok(()),
    }
}

/// Publishes a result. `restored` counts how often the owner found the table gone; `None` keeps the
/// published count.
pub(super) fn publish(
    config: &Config,
    wrong: Option<String>,
    restored: Option<u64>,
) -> Result<(), FirewallError> {
    let dir = config.firewall_dir();
    FirewallReport::now(
        wrong,
        restored.unwrap_or_else(|| FirewallReport::restored(&dir)),
    )
    .publish(&dir)
    .map_err(FirewallError::io(format!(
        "publish the check of the firewall in {}",
        dir.display()
    )))
}

/// A listing of the loaded table that nft is writing, unless none is needed.
pub struct Check<'a> {
    config: &'a Config,
    listing: Option<nft::Pending>,
    /// The kernel's rules before the listing.
    before: Option<Ruleset>,
}

impl<'a> Check<'a> {
    /// Starts nft.
    pub fn begin(config: &'a Config) -> Result<Self, FirewallError> {
        let before = Ruleset::read().ok();
        Ok(Self {
            config,
            listing: Some(nft::begin_list()?),
            before,
        })
    }

    /// Starts nft, unless no rule of the host has changed since the last good comparison.
    pub fn begin_if_changed(config: &'a Config) -> Result<Self, FirewallError> {
        let dir = config.firewall_dir();
        let before = Ruleset::read().ok();
        let unchanged = before
            .filter(|found| found.is_owned())
            .is_some_and(|found| {
                let good = unchanged(config, &Loaded::read(&dir), found);
                is_roots(&dir)
                    && fs::read(dir.join(UNCHANGED)).is_ok_and(|kept| kept == good.as_bytes())
            });
        let listing = (!unchanged).then(nft::begin_list).transpose()?;
        Ok(Self {
            config,
            listing,
            before,
        })
    }

    /// Refuses a start unless the whole table is as configured and has an owner, and the kernel forwards
    /// packets. Publishes a refusal.
    ///
    /// Compares again for up to two seconds, because the owner may be replacing the table.
    pub fn finish(self) -> Result<(), FirewallError> {
        let config = self.config;
        let end = Instant::now() + PATIENCE;
        let mut found = self.compare();
        while found.is_err() && Instant::now() < end {
            thread::sleep(AGAIN);
            found = Check::begin(config).and_then(Check::compare);
        }
        // The owner reads the rules of other programs. Their listing would delay each start.
        if let Some(obstacle) = forwarding::switched_off() {
            found = found.and(Err(obstacle.into()));
        }
        found.inspect_err(|wrong| {
            if let Err(error) = publish(config, Some(chain(wrong)), None) {
                stdio::error(format_args!("runner-controller: {}", chain(&error)));
            }
        })
    }

    /// Compares once.
    pub(super) fn compare(self) -> Result<(), FirewallError> {
        let Some(listing) = self.listing else {
            return Ok(());
        };
        let listing = listing.wait()?.ok_or_else(|| {
            FirewallError::Table(format!(
                "table inet {TABLE} is not loaded; run `systemctl restart {FIREWALL_UNIT}`"
            ))
        })?;
        let dir = self.config.firewall_dir();
        let loaded = Loaded::read(&dir);
        let known = known(self.config, &loaded, &listing);
        let is_known =
            is_roots(&dir) && fs::read(dir.join(KNOWN)).is_ok_and(|seen| seen == known.as_bytes());
        if !is_known {
            let expected = nft::list_apart(&table(self.config, &loaded, ""))?;
            if let Some(difference) = difference(expected.text(), listing.text()) {
                return Err(FirewallError::Table(format!(
                    "table inet {TABLE} is not as configured ({difference}); \
                     run `systemctl reload-or-restart {FIREWALL_UNIT}`"
                )));
            }
            remember(&dir, KNOWN, &known);
        }
        if listing.is_owned() {
            if let Some(before) = self.before {
                remember(&dir, UNCHANGED, &unchanged(self.config, &loaded, before));
            }
            return Ok(());
        }
        Err(FirewallError::Table(format!(
            "table inet {TABLE} does not have an owner, so any program can remove it; \
             run `systemctl restart {FIREWALL_UNIT}`"
        )))
    }
}

/// Keeps what tells a good comparison. Without it the next check takes longer.
fn remember(dir: &Path, file: &str, text: &str) {
    let file = dir.join(file);
    if fs::read(&file).is_ok_and(|kept| kept == text.as_bytes()) {
        return;
    }
    if let Err(error) = atomic_file::replace(&file, text.as_bytes(), 0o644) {
        tracing::debug!(file = %file.display(), %error, "cannot keep a comparison of the firewall: {error}");
    }
}

fn unchanged(config: &Config, loaded: &Loaded, ruleset: Ruleset) -> String {
    format!("{} {ruleset}", fingerprint(config, loaded))
}

fn known(config: &Config, loaded: &Loaded, listing: &Listing) -> String {
    format!(
        "{} listed {:x}",
        fingerprint(config, loaded),
        Sha256::digest(listing.text())
    )
}

/// Returns the first line that two listings do not share.
#[must_use]
pub fn difference(expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
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
    use crate::config::testing;

    #[test]
    fn the_first_difference_is_shown() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        for (found, said) in [
            ("a\n c\n", "found `c` where `b` belongs"),
            ("a\n", "found `}` where `b` belongs"),
            ("a\nb\nx\n", "found `x` where `}` belongs"),
            ("a\nb", "in its line ends"),
        ] {
            let difference = difference("a\nb\n", found);
            assert_eq!(difference.as_deref(), Some(said));
        }
    }

    #[test]
    fn a_digest_is_of_one_configuration_and_one_listing() {
        let config = testing::config();
        let mut other = testing::config();
        other.network.resolvers.pop();
        let (none, listing) = (Loaded::default(), Listing::parse);
        let all = [
            known(&config, &none, &listing("table")),
            known(&config, &none, &listing("tabl")),
            known(&other, &none, &listing("table")),
        ];
        assert!(all.iter().all(|known| known.starts_with("rules ")));
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    }
}
