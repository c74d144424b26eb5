//! `cargo bench-boot`: compares the boot time of a container with that of an older commit.
//!
//! Each side is complete: its launcher, units and firewall, and an image that its `prepare-image` prepared. The
//! sides take turns on one host, so that a disturbance hits both. The side that goes first alternates.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::daemon;
use super::figures::{self, Figure, Source, median};
use super::side::{Side, waiting_socket};
use super::timeline::millis;
use crate::bed::{Bed, note};
use crate::binaries::{Binaries, CONTROLLER, LISTENER, Profile};
use crate::config::Config;
use crate::journal;
use crate::lab::Lab;
use crate::older;

/// Unit of the slot in which both sides boot.
const UNIT: &str = "runner-ci@1.service";

/// Options of the comparison.
#[derive(Debug, Clone)]
pub struct Options {
    /// Commit to compare with.
    pub against: String,
    /// Number of boots of each side; at least 15.
    pub pairs: usize,
    /// Maximum for the median of the pairs' ratios.
    pub at_most: f64,
    /// File for figures and samples, as JSON.
    pub json: Option<PathBuf>,
}

/// Runs the comparison; true if the goal is reached.
pub fn bench(options: &Options) -> Result<bool> {
    let Options { pairs, .. } = *options;
    ensure!(
        pairs >= super::PAIRS_MIN,
        "--pairs must be at least {}, otherwise the medians mean nothing",
        super::PAIRS_MIN
    );
    let bed = Bed::open()?;
    let commit = older::resolve(&options.against).context("--against")?;
    note(&format!("building {commit}, then the working tree"));
    let theirs = older::build(&commit, Profile::Release)?;
    let binaries = Binaries::build(Profile::Release)?;
    let ours = binaries.path(CONTROLLER)?.to_owned();
    let listener = binaries.path(LISTENER)?.to_owned();
    let lab = Lab::up(&bed, binaries)?;
    lab.reset()?;
    let load = daemon::load()?;

    let config = Config::small(lab.sim().api_url());
    let then = Side::prepare(&lab, "bench-then", theirs, &listener, &config)?;
    let now = Side::prepare(&lab, "bench-now", ours, &listener, &config)?;
    then.install(&lab)?;
    let socket = waiting_socket(&lab, "ci-1")?;
    // The first boot of each side is not measured, because the page cache is still cold.
    boot(&then, &lab)?;
    boot(&now, &lab)?;
    note(&format!("{pairs} boots of each, in turns"));
    let mut samples = Vec::new();
    for pair in 0..pairs {
        samples.push(if pair % 2 == 0 {
            let then = boot(&then, &lab)?;
            (then, boot(&now, &lab)?)
        } else {
            let now = boot(&now, &lab)?;
            (boot(&then, &lab)?, now)
        });
    }
    drop(socket);
    lab.reset()?;

    let figures = figures_of(&samples, options.at_most);
    stdio::progress(format_args!("{}", figures::table(&figures)));
    if let Some(path) = &options.json {
        let document = json!({
            "version": 2,
            "machine": daemon::machine()?,
            "load_before": load,
            "clock": "CLOCK_REALTIME",
            "against": commit,
            "pairs": pairs,
            "figures": figures,
        });
        fs::write(path, serde_json::to_string_pretty(&document)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        note(&format!("figures and samples are in {}", path.display()));
    }
    Ok(figures.iter().all(|figure| figure.reached != Some(false)))
}

fn figures_of(samples: &[(f64, f64)], at_most: f64) -> Vec<Figure> {
    let (then, now): (Vec<f64>, Vec<f64>) = samples.iter().copied().unzip();
    let ratios: Vec<f64> = samples.iter().map(|(then, now)| now / then).collect();
    let medians = median(&now) / median(&then);
    vec![
        Figure::plain("then: start to active", "ms", Source::Systemd, then),
        Figure::plain("now: start to active", "ms", Source::Systemd, now),
        Figure::plain("now / then, pair by pair", "×", Source::Systemd, ratios)
            .at_most(at_most, format!(" (of the medians: {medians:.3} ×)")),
    ]
}

/// Boots and stops one container. Returns the milliseconds from systemd's "Starting" until the unit is active,
/// when the container is ready and its network has addresses.
fn boot(side: &Side, lab: &Lab) -> Result<f64> {
    side.install(lab)?;
    let host = lab.host();
    let mark = journal::mark(host)?;
    host.run(&["systemctl", "start", UNIT])?;
    host.run(&["systemctl", "stop", UNIT])?;
    let spans = journal::spans(&journal::since(host, &mark, UNIT)?);
    let started = spans
        .first()
        .and_then(|span| Some(millis(span.started_us? - span.starting_us)));
    started.with_context(|| {
        format!(
            "systemd logged no start of {UNIT}:\n{}",
            lab.journal(UNIT, 20)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_taken_per_pair() {
        // A drift that triples every time leaves the ratios as they are.
        let samples = [(100.0, 104.0), (200.0, 206.0), (300.0, 309.0)];
        let figures = figures_of(&samples, 1.05);
        let ratio = &figures[2];
        assert!((ratio.value - 1.03).abs() < 1e-9, "{ratio:?}");
        assert_eq!(ratio.reached, Some(true));
        assert_eq!(figures_of(&samples, 1.02)[2].reached, Some(false));
    }
}
