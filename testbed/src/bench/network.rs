//! `cargo bench-network`: compares the network path of containers with that of an older commit.
//!
//! In a turn, a side boots eight containers. Programs in their network namespaces send through the host to the network
//! that plays the internet. The kernel does this work, so the controller is a development build.

mod traffic;

use std::path::PathBuf;

use anyhow::Result;

use super::figures::{Figure, Source, median};
use super::side::{Side, waiting_socket};
use super::versus::Versus;
use crate::bed::Bed;
use crate::binaries::Profile;
use crate::claims::leader;
use crate::lab::Lab;
use crate::packages::tools;
use traffic::{Direction, Servers, connections_per_second, gigabits_per_second};

/// Number of containers that a side boots.
const JOBS: u16 = 8;

/// Options of the comparison.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The commit to compare with
    #[arg(long, value_name = "COMMIT")]
    pub against: String,
    /// Turns of each side; at least 15
    #[arg(long, default_value_t = 20)]
    pub pairs: usize,
    /// Fail if the median of the pairs' ratios is below this
    #[arg(long, default_value_t = 0.95)]
    pub at_least: f64,
    /// Write figures and samples here
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Figures of a turn, each the more the better, in the order of [`ROWS`].
type Turn = [f64; ROWS.len()];

/// Names of a figure of the older side, of the newer one and of their ratio, and the figure's unit.
struct Row {
    then: &'static str,
    now: &'static str,
    ratio: &'static str,
    unit: &'static str,
}

const ROWS: [Row; 5] = [
    Row {
        then: "then: one job sends",
        now: "now: one job sends",
        ratio: "one job sends, now / then",
        unit: "Gbit/s",
    },
    Row {
        then: "then: one job receives",
        now: "now: one job receives",
        ratio: "one job receives, now / then",
        unit: "Gbit/s",
    },
    Row {
        then: "then: eight jobs send",
        now: "now: eight jobs send",
        ratio: "eight jobs send, now / then",
        unit: "Gbit/s",
    },
    Row {
        then: "then: eight jobs receive",
        now: "now: eight jobs receive",
        ratio: "eight jobs receive, now / then",
        unit: "Gbit/s",
    },
    Row {
        then: "then: new connections",
        now: "now: new connections",
        ratio: "new connections, now / then",
        unit: "1/s",
    },
];

/// Runs the comparison; true if the goal is reached.
pub fn bench(options: &Options) -> Result<bool> {
    let bed = Bed::open()?;
    tools::install_these(&bed, tools::FOR_BENCH_NETWORK)?;
    let versus = Versus::prepare(
        &bed,
        &options.against,
        options.pairs,
        Profile::Dev,
        |small| small.with("ci", |pool| pool.max_runners = JOBS),
    )?;
    let sockets: Vec<_> = (1..=JOBS)
        .map(|slot| waiting_socket(&versus.lab, &format!("ci-{slot}")))
        .collect::<Result<_>>()?;
    let servers = Servers::start(versus.lab.host(), JOBS)?;
    let samples = versus.alternate(|side, lab| turn(side, lab, &servers))?;
    drop(servers);
    drop(sockets);
    versus.lab.reset()?;
    let figures = figures_of(&samples, options.at_least);
    versus.report(&figures, 1, &[], options.json.as_deref())
}

/// Boots the containers of a side, measures their network, and stops them.
fn turn(side: &Side, lab: &Lab, servers: &Servers) -> Result<Turn> {
    let host = lab.host();
    side.install(lab)?;
    let units: Vec<String> = (1..=JOBS)
        .map(|slot| format!("runner-ci@{slot}.service"))
        .collect();
    let all = |verb| {
        let words = ["systemctl", verb].into_iter();
        let command: Vec<&str> = words.chain(units.iter().map(String::as_str)).collect();
        host.run(&command)
    };
    all("start")?;
    let namespaces: Vec<PathBuf> = (1..=JOBS)
        .map(|slot| {
            let leader = leader(lab, &format!("ci-{slot}"))?;
            Ok(host.path(&format!("/proc/{leader}/ns/net")))
        })
        .collect::<Result<_>>()?;
    let one = &namespaces[..1];
    let turn = [
        gigabits_per_second(servers, one, Direction::Up)?,
        gigabits_per_second(servers, one, Direction::Down)?,
        gigabits_per_second(servers, &namespaces, Direction::Up)?,
        gigabits_per_second(servers, &namespaces, Direction::Down)?,
        connections_per_second(servers, &namespaces[0])?,
    ];
    all("stop")?;
    Ok(turn)
}

fn figures_of(samples: &[(Turn, Turn)], at_least: f64) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (at, row) in ROWS.into_iter().enumerate() {
        let then: Vec<f64> = samples.iter().map(|(then, _)| then[at]).collect();
        let now: Vec<f64> = samples.iter().map(|(_, now)| now[at]).collect();
        let ratios = now.iter().zip(&then).map(|(now, then)| now / then);
        let ratios = ratios.collect();
        let medians = median(&now) / median(&then);
        figures.extend([
            Figure::plain(row.then, row.unit, Source::Network, then),
            Figure::plain(row.now, row.unit, Source::Network, now),
            Figure::plain(row.ratio, "×", Source::Network, ratios)
                .at_least(at_least, format!(" (of the medians: {medians:.3} ×)")),
        ]);
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slower_path_misses_the_goal() {
        let samples = [([10.0; 5], [9.0; 5]), ([20.0; 5], [18.0; 5])];
        let figures = figures_of(&samples, 0.95);
        assert_eq!(figures.len(), 3 * ROWS.len());
        let ratios: Vec<_> = figures.iter().filter(|figure| figure.unit == "×").collect();
        assert!(ratios.iter().all(|ratio| (ratio.value - 0.9).abs() < 1e-9));
        assert!(ratios.iter().all(|ratio| ratio.reached == Some(false)));
        let lower = figures_of(&samples, 0.85);
        assert!(lower.iter().all(|figure| figure.reached != Some(false)));
    }
}
