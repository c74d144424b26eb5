//! Record of the rules that are loaded, kept beside the report.
//!
//! A runner ends under the rules that it started with. When a pool leaves the configuration while its
//! containers run, its chains stay in the table until the last of their links is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::chains::Chains;
use crate::atomic_file;
use crate::config::{Config, Ipv4Block};
use crate::pool::PoolName;

const FILE: &str = "loaded.json";
/// Directory with one entry for each link of the host's network namespace.
const LINKS: &str = "/sys/class/net";

/// Pools and address blocks that the table has rules for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    pub(super) pools: BTreeMap<String, Chains>,
    pub(super) blocks: BTreeSet<String>,
}

impl Loaded {
    /// Returns what a configuration asks for.
    pub(super) fn configured(config: &Config) -> Self {
        let pools = config.pools.iter();
        Self {
            pools: pools
                .map(|pool| (pool.name.to_string(), Chains::of(config, pool)))
                .collect(),
            blocks: BTreeSet::from([config.network.block.to_string()]),
        }
    }

    /// Reads the record. A record that is missing, or that another user could have written, is empty.
    #[must_use]
    pub fn read(dir: &Path) -> Self {
        if !is_roots(dir) {
            return Self::default();
        }
        let text = match fs::read(dir.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                let dir = dir.display();
                tracing::warn!(%dir, %error, "cannot read the record of loaded rules in {dir}: {error}");
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            let dir = dir.display();
            tracing::warn!(%dir, %error, "cannot read the record of loaded rules in {dir}: {error}");
            Self::default()
        })
    }

    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        atomic_file::replace(&dir.join(FILE), &serde_json::to_vec(self)?, 0o644)
    }

    /// Returns the part that a configuration no longer asks for and that a running container needs:
    /// pools with a link, and address blocks while any link exists.
    #[must_use]
    pub(super) fn kept(self, config: &Config, links: &BTreeSet<PoolName>) -> Self {
        let configured = Self::configured(config);
        let needed = |name: &String| links.iter().any(|link| link.to_string() == *name);
        Self {
            pools: self
                .pools
                .into_iter()
                .filter(|(name, _)| !configured.pools.contains_key(name) && needed(name))
                .collect(),
            blocks: if links.is_empty() {
                BTreeSet::new()
            } else {
                self.blocks
                    .into_iter()
                    .filter(|block| block.parse::<Ipv4Block>().is_ok())
                    .filter(|block| !configured.blocks.contains(block))
                    .collect()
            },
        }
    }
}

/// Returns the pools that have a link on the host.
pub(super) fn linked_pools() -> io::Result<BTreeSet<PoolName>> {
    let mut pools = BTreeSet::new();
    for entry in fs::read_dir(LINKS)? {
        let name = entry?.file_name();
        pools.extend(name.to_str().and_then(pool_of_link));
    }
    Ok(pools)
}

/// Returns the pool of a link that is named `rc-<pool>-<slot>`.
fn pool_of_link(name: &str) -> Option<PoolName> {
    let (pool, slot) = name.strip_prefix("rc-")?.rsplit_once('-')?;
    slot.parse::<u16>().ok()?;
    pool.parse().ok()
}

/// Returns true if only root can write to a directory.
pub(super) fn is_roots(dir: &Path) -> bool {
    fs::symlink_metadata(dir)
        .is_ok_and(|seen| seen.is_dir() && seen.uid() == 0 && seen.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    #[test]
    fn a_removed_pool_is_kept_while_it_has_a_link() {
        let before = Loaded::configured(&testing::config());
        let mut config = testing::config();
        config.pools = vec![testing::pool("other", 0)];
        let links = BTreeSet::from(["ci".parse().unwrap()]);
        let kept = before.clone().kept(&config, &links);
        assert_eq!(kept.pools.keys().collect::<Vec<_>>(), ["ci"]);
        let none = before.clone().kept(&config, &BTreeSet::new());
        assert_eq!(none, Loaded::default());
        // A pool that is configured again has the rules of its configuration.
        assert!(before.kept(&testing::config(), &links).pools.is_empty());
    }

    #[test]
    fn a_former_block_is_kept_while_any_link_exists() {
        let before = Loaded::configured(&testing::config());
        let mut config = testing::config();
        config.network.block = "10.99.0.0/16".parse().unwrap();
        let links = BTreeSet::from(["ci".parse().unwrap()]);
        let kept = before.clone().kept(&config, &links);
        assert_eq!(kept.blocks, BTreeSet::from(["10.200.0.0/16".to_owned()]));
        assert!(before.kept(&config, &BTreeSet::new()).blocks.is_empty());
    }

    #[test]
    fn a_link_names_its_pool() {
        assert_eq!(pool_of_link("rc-ci-3"), "ci".parse().ok());
        for other in ["eth0", "rc-ci", "rc-ci-x", "rc--1", "ve-ci-1", "rc-c i-1"] {
            assert_eq!(pool_of_link(other), None, "{other}");
        }
    }
}
