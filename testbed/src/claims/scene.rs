//! What claims begin with.

use anyhow::{Context, Result};
use serde_json::json;

use super::common::SOON;
use super::{docker, flood, layers, nix, scarce, troubles};
use crate::config::{Config, Pool};
use crate::lab::{Lab, TOKEN};

/// What a claim begins with. All but the first have a running daemon whose pools are as they are
/// wanted, and a stand-in without faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// A host with nothing of ours on it, and no daemon.
    Empty,
    /// One pool `ci` of at most four slots: one idle, one spare.
    Small,
    /// Pools that cannot work, each for a reason of its own, beside one that does.
    Troubled,
    /// One pool on disk layers, on a host whose disks are small and can be made smaller.
    Scarce,
    /// Pools of every kind of image and layer, in an organisation.
    Layers,
    /// Pools whose jobs have Nix, and one whose jobs have not.
    Nix,
    /// Pools whose jobs have Docker, and one whose jobs have not.
    Docker,
    /// Four slots for many quick jobs.
    Four,
}

impl Scene {
    /// Sets the scene on an empty host.
    pub fn set(self, lab: &Lab) -> Result<()> {
        let Some(config) = self.config(lab)? else {
            return Ok(());
        };
        lab.install(&config)?;
        lab.start()?;
        self.await_ready(lab)
    }

    /// Makes it again what it is to begin with, after a claim that held.
    pub fn resume(self, lab: &Lab) -> Result<()> {
        let sim = lab.sim();
        sim.clear_faults()?;
        sim.set(&json!({ "idle_reap_ms": null, "minimum_version": null, "lock_ms": 600_000 }))?;
        sim.rotate_token(TOKEN)?;
        // Forgets every backoff, too.
        lab.api("POST", "/undrain")?;
        self.await_ready(lab)
            .with_context(|| format!("the scene {self:?} after the claim before"))
    }

    fn await_ready(self, lab: &Lab) -> Result<()> {
        match self {
            Self::Empty => Ok(()),
            Self::Small | Self::Scarce | Self::Layers | Self::Nix | Self::Docker => {
                lab.await_settled(SOON).map(drop)
            }
            Self::Four => flood::await_ready(lab),
            Self::Troubled => troubles::await_ready(lab),
        }
    }

    fn config(self, lab: &Lab) -> Result<Option<Config>> {
        let url = lab.sim().api_url();
        Ok(match self {
            Self::Empty => None,
            Self::Small => Some(small(url)),
            Self::Troubled => Some(troubles::config(lab)?),
            Self::Scarce => Some(scarce::config(lab)?),
            Self::Layers => Some(layers::config(lab)?),
            Self::Nix => Some(nix::config(lab)?),
            Self::Docker => Some(docker::config(lab)?),
            Self::Four => Some(small(url).with("ci", |pool| {
                pool.min_idle = 3;
                pool.min_spare = 1;
            })),
        })
    }
}

/// What most claims want: one pool, and a compare every two seconds.
pub(super) fn small(api_url: &str) -> Config {
    let mut config = Config::small(api_url);
    config.reconcile = "2s".into();
    config.with("ci", |pool| {
        pool.max_runners = 4;
        pool.layer_size = "256 MiB".into();
    })
}

/// A pool of one slot.
pub(super) fn one(name: &str, offset: u16) -> Pool {
    let mut pool = Pool::new(name, offset);
    (pool.min_idle, pool.min_spare, pool.max_runners) = (1, 0, 1);
    pool.layer_size = "256 MiB".into();
    pool
}
