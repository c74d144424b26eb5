//! Log files of listeners that ended, as root kept them.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;

use crate::config::LOG_BUNDLES_DIR;
use crate::log_bundles::{self, Bundle, BundleName};
use crate::pool::SlotId;
use crate::status::VerdictRecord;
use crate::world::Invocation;

/// The bundles of this host, by the runner's start.
#[derive(Debug, Default)]
pub(super) struct KeptLogs(HashMap<Invocation, BundleName>);

impl KeptLogs {
    /// Returns true if a runner's log files are kept.
    pub(super) fn has(&self, runner: &VerdictRecord) -> bool {
        self.name(runner).is_some()
    }

    /// Returns the path of a runner's bundle, if it is kept.
    pub(super) fn file(&self, runner: &VerdictRecord) -> Option<String> {
        let path = |name| log_bundles::path(Path::new(LOG_BUNDLES_DIR), name);
        let path = self.name(runner).map(path)?;
        Some(path.display().to_string())
    }

    fn name(&self, runner: &VerdictRecord) -> Option<&BundleName> {
        self.0.get(runner.invocation.as_ref()?)
    }
}

/// Returns the bundles of this host, the newest first.
///
/// A user that may not read their directory sees none.
pub(super) fn bundles() -> anyhow::Result<Vec<Bundle>> {
    match log_bundles::list(Path::new(LOG_BUNDLES_DIR)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(Vec::new()),
        bundles => bundles.with_context(|| format!("cannot list {LOG_BUNDLES_DIR}")),
    }
}

/// Returns the bundles of this host by the runner's start.
pub(super) fn all() -> anyhow::Result<KeptLogs> {
    let bundles = bundles()?.into_iter();
    let by_start = bundles.map(|bundle| (bundle.name.invocation.clone(), bundle.name));
    Ok(KeptLogs(by_start.collect()))
}

/// Returns the bundle of a runner.
pub(super) fn of(invocation: Option<&Invocation>) -> anyhow::Result<Option<BundleName>> {
    let Some(invocation) = invocation else {
        return Ok(None);
    };
    let mut names = bundles()?.into_iter().map(|bundle| bundle.name);
    Ok(names.find(|name| name.invocation == *invocation))
}

/// Returns the newest bundle of a slot.
pub(super) fn newest_of(slot: &SlotId) -> anyhow::Result<Option<BundleName>> {
    let mut names = bundles()?.into_iter().map(|bundle| bundle.name);
    Ok(names.find(|name| name.slot == *slot))
}

/// Returns the text of a bundle, safe for a terminal.
pub(super) fn text(name: &BundleName) -> anyhow::Result<String> {
    let dir = Path::new(LOG_BUNDLES_DIR);
    log_bundles::read(dir, name).with_context(|| {
        format!(
            "cannot read {}; root and the group runner-controller can",
            log_bundles::path(dir, name).display()
        )
    })
}

#[cfg(test)]
impl KeptLogs {
    /// Returns bundles with this one.
    pub(super) fn with(name: BundleName) -> Self {
        Self([(name.invocation.clone(), name)].into())
    }
}
