//! Host files of pools that the configuration no longer has.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::pool::PoolName;
use crate::status::{PhaseKind, Status};

/// Directory of the rendered units.
const UNITS: &str = "etc/systemd/system";

/// A pool that is not configured, and the files that it left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RemovedPool {
    pub(super) name: PoolName,
    files: Vec<PathBuf>,
}

/// Returns the removed pools that have files below `root`.
pub(super) fn find(config: &Config, root: &Path) -> io::Result<Vec<RemovedPool>> {
    let mut found: BTreeMap<PoolName, Vec<PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(root.join(UNITS))? {
        let path = entry?.path();
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(pool_of)
        else {
            continue;
        };
        // The names are a pattern that another program could use as well.
        let is_ours = fs::read_to_string(&path).is_ok_and(|text| is_rendered(&text, &name));
        if config.pool(&name).is_none() && is_ours {
            found.entry(name).or_default().push(path);
        }
    }
    let pools = found.into_iter().map(|(name, mut files)| {
        files.sort();
        RemovedPool { name, files }
    });
    Ok(pools.collect())
}

/// Returns the pool of a template or a slice.
fn pool_of(unit: &str) -> Option<PoolName> {
    let template = unit
        .strip_prefix("runner-")
        .and_then(|rest| rest.strip_suffix("@.service"));
    let slice = unit
        .strip_prefix("runners-")
        .and_then(|rest| rest.strip_suffix(".slice"));
    template.or(slice)?.parse().ok()
}

/// Returns true for the text of a template or a slice that `hostfiles` rendered for a pool.
fn is_rendered(text: &str, pool: &PoolName) -> bool {
    let descriptions = [
        format!("Description=CI runner {pool}-%i"),
        format!("Description=CI runners of pool {pool}"),
    ];
    text.lines()
        .any(|line| descriptions.iter().any(|it| it == line))
}

impl RemovedPool {
    /// Returns true if the daemon still ends a runner of the pool that has no job.
    pub(super) fn has_runner_without_job(&self, status: &Status) -> bool {
        let pool = status.pool(&self.name.to_string());
        pool.is_some_and(|pool| {
            let mut runners = pool.runners.iter();
            runners.any(|runner| runner.phase != PhaseKind::Busy)
        })
    }

    /// Removes the files and returns them.
    pub(super) fn remove(&self) -> io::Result<&[PathBuf]> {
        for file in &self.files {
            fs::remove_file(file).map_err(|error| {
                let text = format!("cannot remove {}: {error}", file.display());
                io::Error::new(error.kind(), text)
            })?;
        }
        Ok(&self.files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;
    use crate::hostfiles;

    #[test]
    fn only_rendered_files_of_removed_pools_are_found() {
        let root = tempfile::tempdir().unwrap();
        let mut before = testing::config();
        before.pools.push(testing::pool("old", 4));
        let files = hostfiles::render(&before, Path::new("/bin/rc"), Path::new("/c.toml"));
        hostfiles::install(&files, root.path()).unwrap();
        let units = root.path().join(UNITS);
        fs::write(units.join("runner-mine@.service"), "[Service]\n").unwrap();
        assert_eq!(find(&before, root.path()).unwrap(), []);
        let now = testing::config();
        let found = find(&now, root.path()).unwrap();
        let expected = RemovedPool {
            name: "old".parse().unwrap(),
            files: ["runner-old@.service", "runners-old.slice"]
                .map(|name| units.join(name))
                .into(),
        };
        assert_eq!(found, [expected]);
        assert_eq!(found[0].remove().unwrap().len(), 2);
        assert_eq!(find(&now, root.path()).unwrap(), []);
        assert!(units.join("runner-ci@.service").exists());
        assert!(units.join("runner-mine@.service").exists());
    }
}
