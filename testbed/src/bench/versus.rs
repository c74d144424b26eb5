//! Two versions of the program that take turns on one host, so that a disturbance hits both.
//!
//! Each side is complete: its launcher, units and firewall, and an image that its `prepare-image` prepared.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::PAIRS_MIN;
use super::daemon;
use super::figures::{self, Figure};
use super::side::Side;
use crate::bed::{Bed, note};
use crate::binaries::{Binaries, CONTROLLER, LISTENER, Profile};
use crate::config::Config;
use crate::lab::Lab;
use crate::older;

/// An older commit and the working tree on one host.
pub(super) struct Versus {
    pub(super) lab: Lab,
    /// The older side.
    pub(super) then: Side,
    /// The newer side.
    pub(super) now: Side,
    commit: String,
    pairs: usize,
    load_before: f64,
}

impl Versus {
    /// Builds both sides, and prepares them with the configuration that `config` makes of the smallest one.
    pub(super) fn prepare(
        bed: &Bed,
        against: &str,
        pairs: usize,
        profile: Profile,
        config: impl FnOnce(Config) -> Config,
    ) -> Result<Self> {
        ensure!(
            pairs >= PAIRS_MIN,
            "--pairs must be at least {PAIRS_MIN}, otherwise the medians mean nothing"
        );
        let commit = older::resolve(against).context("--against")?;
        note(&format!("building {commit}, then the working tree"));
        let theirs = older::build(&commit, profile)?;
        let binaries = Binaries::build(profile)?;
        let ours = binaries.path(CONTROLLER)?.to_owned();
        let listener = binaries.path(LISTENER)?.to_owned();
        let lab = Lab::up(bed, binaries)?;
        lab.reset()?;
        let load_before = daemon::load()?;
        let config = config(Config::small(lab.sim().api_url()));
        let then = Side::prepare(&lab, "bench-then", theirs, &listener, &config)?;
        let now = Side::prepare(&lab, "bench-now", ours, &listener, &config)?;
        then.install(&lab)?;
        Ok(Self {
            lab,
            then,
            now,
            commit,
            pairs,
            load_before,
        })
    }

    /// Measures both sides in turns. The side that goes first alternates. Returns pairs of the older and the newer
    /// side.
    pub(super) fn alternate<T>(
        &self,
        turn: impl Fn(&Side, &Lab) -> Result<T>,
    ) -> Result<Vec<(T, T)>> {
        let then = || turn(&self.then, &self.lab);
        let now = || turn(&self.now, &self.lab);
        // The first turn of each side is not measured, because the page cache is still cold.
        then()?;
        now()?;
        note(&format!("{} turns of each, alternating", self.pairs));
        let pair = |number| {
            Ok(if number % 2 == 0 {
                let then = then()?;
                (then, now()?)
            } else {
                let now = now()?;
                (then()?, now)
            })
        };
        (0..self.pairs).map(pair).collect()
    }

    /// Shows the figures, and writes them as JSON to `path`; true if all goals are reached. `version` is that of the
    /// document, which also has the entries of `facts`.
    pub(super) fn report(
        &self,
        figures: &[Figure],
        version: u32,
        facts: &[(&str, &str)],
        path: Option<&Path>,
    ) -> Result<bool> {
        figures::report(figures, "", path, || {
            let mut document = json!({
                "version": version,
                "machine": daemon::machine()?,
                "load_before": self.load_before,
                "against": self.commit,
                "pairs": self.pairs,
            });
            for (name, fact) in facts {
                document[*name] = json!(fact);
            }
            Ok(document)
        })
    }
}
