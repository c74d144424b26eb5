//! Versions of GitHub's runner in the pools: a question to GitHub each day, so that its refusal is told in time.
//!
//! Nothing depends on the answer. A question that fails is told once, and neither delays a runner nor makes the host
//! unhealthy.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{info, warn};

use crate::config::{Config, Image};
use crate::pool::{Freshness, Pool, PoolName, RunnerVersion, ScopeId, Timestamp, VersionEnd};
use crate::status::{VersionRemedy, VersionStatus};
use crate::world::{Failure as _, RegistryError};

/// Interval between questions about a version.
const INTERVAL: Duration = Duration::from_hours(24);
/// Interval after a question that failed for a reason that passes.
const RETRY: Duration = Duration::from_hours(1);

/// Versions of the pools, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Versions {
    seen: BTreeMap<PoolName, RunnerVersion>,
    /// GitHub's answers about each version that a pool has.
    asked: BTreeMap<(ScopeId, RunnerVersion), Question>,
    /// Judgements that the journal has.
    logged: BTreeMap<PoolName, (RunnerVersion, Freshness)>,
}

#[derive(Debug, Default)]
struct Question {
    is_under_way: bool,
    due_at: Timestamp,
    end: Option<VersionEnd>,
    answered_unix_ms: Option<u64>,
    error: Option<String>,
}

impl Versions {
    /// Returns the version of a pool's runners, if GitHub listed one.
    pub(super) fn of(&self, config: &Config, pool: &PoolName) -> Option<VersionStatus> {
        let version = *self.seen.get(pool)?;
        let config = config.pool(pool)?;
        let asked = self.asked.get(&(config.scope.clone(), version));
        Some(VersionStatus {
            version,
            end: asked.and_then(|asked| asked.end),
            asked_unix_ms: asked.and_then(|asked| asked.answered_unix_ms),
            remedy: match config.image {
                Image::Nixos { .. } => VersionRemedy::Nixpkgs,
                Image::Directory { .. } => VersionRemedy::Rebuild,
            },
        })
    }

    /// Takes the versions of the runners that there are, and returns the questions that are due, which then are
    /// under way.
    pub(super) fn begin<'a>(
        &mut self,
        config: &Config,
        pools: impl Iterator<Item = &'a Pool>,
        now: Timestamp,
    ) -> Vec<(ScopeId, RunnerVersion)> {
        for pool in pools {
            if let Some(version) = newest(pool) {
                self.seen.insert(pool.spec.name.clone(), version);
            }
        }
        let pools = config.pools.iter().filter_map(|pool| {
            let version = self.seen.get(&pool.name)?;
            Some((pool.scope.clone(), *version))
        });
        let wanted: Vec<_> = pools.collect();
        self.asked.retain(|key, _| wanted.contains(key));
        let mut due = Vec::new();
        for key in wanted {
            let question = self.asked.entry(key.clone()).or_default();
            if !question.is_under_way && question.due_at <= now {
                question.is_under_way = true;
                due.push(key);
            }
        }
        due
    }

    /// Applies the answer to a question.
    pub(super) fn answered(
        &mut self,
        config: &Config,
        key: (ScopeId, RunnerVersion),
        result: Result<Option<VersionEnd>, RegistryError>,
        now: Timestamp,
        unix_ms: u64,
    ) {
        let (scope, version) = (key.0.clone(), key.1);
        // Without a question, no pool has the version any more.
        if let Some(question) = self.asked.get_mut(&key) {
            question.apply(&scope, version, result, now, unix_ms);
        }
        self.log(config, unix_ms);
    }

    /// Logs each pool whose version comes near its end, passes it, or becomes newer.
    fn log(&mut self, config: &Config, unix_ms: u64) {
        for pool in &config.pools {
            let name = &pool.name;
            let Some(status) = self.of(config, name) else {
                continue;
            };
            let Some(end) = status.end else { continue };
            let found = (status.version, end.at(unix_ms));
            let before = self.logged.insert(name.clone(), found);
            if before == Some(found) {
                continue;
            }
            let version = status.version;
            match found.1 {
                Freshness::Fresh => {
                    info!(pool = %name, %version, "pool {name}: GitHub accepts runner {version}");
                }
                Freshness::NearEnd | Freshness::Over => {
                    let hours = end.unix_ms().unwrap_or(0).saturating_sub(unix_ms) / 3_600_000;
                    warn!(
                        pool = %name, %version, hours,
                        "pool {name}: GitHub refuses runner {version} in {hours} hours; \
                         put a newer runner into the image"
                    );
                }
            }
        }
    }
}

impl Question {
    fn apply(
        &mut self,
        scope: &ScopeId,
        version: RunnerVersion,
        result: Result<Option<VersionEnd>, RegistryError>,
        now: Timestamp,
        unix_ms: u64,
    ) {
        self.is_under_way = false;
        match result {
            Ok(end) => {
                self.due_at = now + INTERVAL;
                (self.end, self.answered_unix_ms, self.error) = (end, Some(unix_ms), None);
            }
            // The dates of an earlier answer stay.
            Err(error) => {
                let wait = if error.is_transient() {
                    RETRY
                } else {
                    INTERVAL
                };
                self.due_at = now + error.retry_after.unwrap_or_default().max(wait);
                let text = error.to_string();
                if self.error.as_ref() != Some(&text) {
                    info!(
                        %scope, %version, %error,
                        "cannot ask {scope} for the end of runner {version}: {error}; runners start all the same"
                    );
                }
                self.error = Some(text);
            }
        }
    }
}

/// Returns the version of the pool's newest runner of which it is known.
fn newest(pool: &Pool) -> Option<RunnerVersion> {
    let runners = pool.runners.values();
    let known = runners.filter_map(|runner| Some((runner.started_at, runner.version?)));
    known.max().map(|(_, version)| version)
}
