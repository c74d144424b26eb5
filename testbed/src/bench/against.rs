//! `cargo bench-boot`: compares the boot time of a container with that of an older commit.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::figures::{Figure, Source, median};
use super::side::{Side, waiting_socket};
use super::timeline::millis;
use super::versus::Versus;
use crate::bed::Bed;
use crate::binaries::Profile;
use crate::journal;
use crate::lab::Lab;

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
    let bed = Bed::open()?;
    let versus = Versus::prepare(
        &bed,
        &options.against,
        options.pairs,
        Profile::Release,
        |small| small,
    )?;
    let socket = waiting_socket(&versus.lab, "ci-1")?;
    let samples = versus.alternate(boot)?;
    drop(socket);
    versus.lab.reset()?;
    let figures = figures_of(&samples, options.at_most);
    let clock = [("clock", "CLOCK_REALTIME")];
    versus.report(&figures, 2, &clock, options.json.as_deref())
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
