//! Fixtures: the states of the test host in which claims begin.
//!
//! The two that most suites share are declared here. A suite that needs another one declares it
//! beside its claims.

use anyhow::{Context, Result};
use serde_json::json;

use super::common::SOON;
use crate::config::{Config, Image, Pool};
use crate::image;
use crate::lab::{Lab, TOKEN};

/// State of the test host in which a claim begins.
///
/// Every fixture but [`EMPTY`] has a running daemon whose pools have reached their configured
/// numbers, and a stand-in for GitHub without faults.
#[derive(Debug, Clone, Copy)]
pub struct Fixture {
    /// Name in messages. Two fixtures with one name are the same fixture.
    pub name: &'static str,
    /// Prepares the host and returns the daemon's configuration, or `None` for a host without a daemon.
    pub(super) config: fn(&Lab) -> Result<Option<Config>>,
    /// Waits until the pools have reached their configured numbers.
    pub(super) await_ready: fn(&Lab) -> Result<()>,
}

/// A host without our files and without a daemon.
pub(super) const EMPTY: Fixture = Fixture {
    name: "empty",
    config: |_| Ok(None),
    await_ready: |_| Ok(()),
};

/// One pool `ci` with at most four slots: one idle runner and one spare.
pub(super) const SMALL: Fixture = Fixture {
    name: "small",
    config: |lab| Ok(Some(small(lab.sim().api_url()))),
    await_ready: await_settled,
};

/// The same with an image that boots its runner before the rest of its system.
pub(super) const SMALL_MINIMAL: Fixture = Fixture {
    name: "small, minimal",
    config: |lab| {
        let image = image::minimal(lab.host())?;
        let config = small(lab.sim().api_url());
        Ok(Some(config.with("ci", |pool| {
            pool.image = Image::Directory(image);
        })))
    },
    await_ready: await_settled,
};

impl Fixture {
    /// Returns true if this is the fixture without a daemon.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.name == EMPTY.name
    }

    /// Sets the fixture up on an empty host.
    pub fn set_up(&self, lab: &Lab) -> Result<()> {
        let Some(config) = (self.config)(lab)? else {
            return Ok(());
        };
        lab.install(&config)?;
        lab.start()?;
        (self.await_ready)(lab)
    }

    /// Restores the fixture after a claim that held.
    pub fn restore(&self, lab: &Lab) -> Result<()> {
        let sim = lab.sim();
        sim.clear_faults()?;
        sim.set(&json!({ "idle_reap_ms": null, "minimum_version": null, "lock_ms": 600_000 }))?;
        sim.rotate_token(TOKEN)?;
        // An undrain also resets every backoff.
        lab.api("POST", "/undrain")?;
        (self.await_ready)(lab)
            .with_context(|| format!("restore the fixture {} after the last claim", self.name))
    }
}

/// Waits until every pool has its idle runners and spares.
pub(super) fn await_settled(lab: &Lab) -> Result<()> {
    lab.await_settled(SOON).map(drop)
}

/// Returns the configuration of [`SMALL`]: one pool, reconciled every two seconds.
pub(super) fn small(api_url: &str) -> Config {
    let mut config = Config::small(api_url);
    config.reconcile = "2s".into();
    config.with("ci", |pool| {
        pool.max_runners = 4;
        pool.layer_size = "256 MiB".into();
    })
}

/// Returns a pool with one slot.
pub(super) fn one(name: &str, offset: u16) -> Pool {
    let mut pool = Pool::new(name, offset);
    (pool.min_idle, pool.min_spare, pool.max_runners) = (1, 0, 1);
    pool.layer_size = "256 MiB".into();
    pool
}
