//! `cargo bench-boot`: how long a container takes to boot, beside an older commit of this program.
//!
//! Each side is whole: its own launcher, its own units and firewall, an image that its own
//! `prepare-image` prepared. They take turns on one host, so that what disturbs one disturbs the
//! other; which one goes first changes from pair to pair.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::daemon;
use super::figures::{self, Figure, Teller, median};
use super::lives::millis;
use crate::bed::{Bed, note, remove_tree};
use crate::binaries::{Binaries, CONTROLLER, LISTENER, Profile};
use crate::config::{self, Config};
use crate::host::images_dir;
use crate::image;
use crate::journal;
use crate::lab::{Lab, RUN_DIR};
use crate::older;

/// The one slot in which both sides boot.
const UNIT: &str = "runner-ci@1.service";
const SOCKETS: &str = "slots/ci-1";

/// What the caller may choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// The commit that is compared with.
    pub against: String,
    /// Boots of each side; at least 15.
    pub pairs: usize,
    /// The median of the pairs' ratios may be at most this.
    pub at_most: f64,
    /// Where to write figures and samples.
    pub json: Option<PathBuf>,
}

/// Runs the comparison; true if the goal is reached.
pub fn bench(options: &Options) -> Result<bool> {
    let Options { pairs, .. } = *options;
    ensure!(
        pairs >= super::PAIRS_MIN,
        "--pairs: at least {}, or the medians say nothing",
        super::PAIRS_MIN
    );
    let bed = Bed::open()?;
    let commit = older::resolve(&options.against).context("--against")?;
    note(&format!("building {commit}, then what is here"));
    let theirs = older::build(&commit, Profile::Release)?;
    let binaries = Binaries::build(Profile::Release)?;
    let ours = binaries.path(CONTROLLER)?.to_owned();
    let listener = binaries.path(LISTENER)?.to_owned();
    let lab = Lab::up(&bed, binaries)?;
    lab.reset()?;
    let load = daemon::load()?;

    let then = Side::prepare(&lab, "bench-then", theirs, &listener)?;
    let now = Side::prepare(&lab, "bench-now", ours, &listener)?;
    then.install(&lab)?;
    let socket = waiting_socket(&lab)?;
    // Nobody's first boot is measured: what it reads is not in memory yet.
    then.live(&lab)?;
    now.live(&lab)?;
    note(&format!("{pairs} boots of each, in turns"));
    let mut samples = Vec::new();
    for pair in 0..pairs {
        samples.push(if pair % 2 == 0 {
            let then = then.live(&lab)?;
            (then, now.live(&lab)?)
        } else {
            let now = now.live(&lab)?;
            (then.live(&lab)?, now)
        });
    }
    drop(socket);
    lab.reset()?;

    let figures = figures_of(&samples, options.at_most);
    println!("{}", figures::table(&figures));
    if let Some(path) = &options.json {
        let document = json!({
            "version": 1,
            "machine": daemon::machine()?,
            "load_before": load,
            "clock": "CLOCK_REALTIME",
            "against": commit,
            "pairs": pairs,
            "figures": figures,
        });
        fs::write(path, serde_json::to_string_pretty(&document)?)
            .with_context(|| format!("write {}", path.display()))?;
        note(&format!("figures and samples are in {}", path.display()));
    }
    Ok(figures.iter().all(|figure| figure.reached != Some(false)))
}

fn figures_of(samples: &[(f64, f64)], at_most: f64) -> Vec<Figure> {
    let (then, now): (Vec<f64>, Vec<f64>) = samples.iter().copied().unzip();
    let ratios: Vec<f64> = samples.iter().map(|(then, now)| now / then).collect();
    let medians = median(&now) / median(&then);
    vec![
        Figure::plain("then: start to active", "ms", Teller::Systemd, then),
        Figure::plain("now: start to active", "ms", Teller::Systemd, now),
        Figure::plain("now / then, pair by pair", "×", Teller::Systemd, ratios)
            .at_most(at_most, format!(" (of the medians: {medians:.3} ×)")),
    ]
}

/// One state of the program, and the image it prepared.
struct Side {
    program: PathBuf,
    image: PathBuf,
    config: Config,
}

impl Side {
    fn prepare(lab: &Lab, name: &str, program: PathBuf, listener: &Path) -> Result<Self> {
        let side = Self {
            program,
            image: images_dir(lab.host().bed()).join(name),
            config: Config::small(lab.sim().api_url()).with("ci", |pool| {
                pool.image = config::Image::Directory(format!("/var/lib/runner-images/{name}"));
            }),
        };
        side.install_program(lab)?;
        image::prepare(lab.host(), name, listener)?;
        Ok(side)
    }

    fn install_program(&self, lab: &Lab) -> Result<()> {
        let path = format!("/usr/local/bin/{CONTROLLER}");
        lab.host().install(&self.program, &path, 0o755)
    }

    /// Puts this side's program, units and firewall on the host.
    fn install(&self, lab: &Lab) -> Result<()> {
        self.install_program(lab)?;
        // The firewall of each side is started at each turn, which systemd would take for a fault.
        // The first time there is none to forgive.
        lab.host().output(&[
            "systemctl",
            "reset-failed",
            "runner-controller-firewall.service",
        ])?;
        lab.install(&self.config)
    }

    /// One boot and its end. Milliseconds from systemd's beginning until the unit is active, so
    /// until the container is ready and its network addressed.
    fn live(&self, lab: &Lab) -> Result<f64> {
        self.install(lab)?;
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
                "{UNIT} was started and did not say so:\n{}",
                lab.journal(UNIT, 20)
            )
        })
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.image) {
            note(&format!("an image of the benchmark stays: {error:#}"));
        }
    }
}

/// Where the container asks for its config. Never answered: a spare's question waits as well.
fn waiting_socket(lab: &Lab) -> Result<UnixListener> {
    let path = lab.host().path(&format!("{RUN_DIR}/{SOCKETS}/jit.sock"));
    let socket = UnixListener::bind(&path).context("make the slot's socket")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_compared_one_by_one() {
        // A drift that triples every time leaves the ratios as they are.
        let samples = [(100.0, 104.0), (200.0, 206.0), (300.0, 309.0)];
        let figures = figures_of(&samples, 1.05);
        let ratio = &figures[2];
        assert!((ratio.value - 1.03).abs() < 1e-9, "{ratio:?}");
        assert_eq!(ratio.reached, Some(true));
        assert_eq!(figures_of(&samples, 1.02)[2].reached, Some(false));
    }
}
