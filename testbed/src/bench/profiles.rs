//! `cargo bench-boot --profiles`: compares a stock with a minimal image, each booted bare and by the launcher.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::statfs::statfs;
use serde_json::json;

use super::figures::{self, Figure, Source, median};
use super::floor::{self, Floor};
use super::side::waiting_socket;
use super::timeline::millis;
use super::{PAIRS_MIN, daemon, usage};
use crate::bed::{Bed, note, remove_tree};
use crate::binaries::{Binaries, LISTENER, Profile as Build};
use crate::config::{Config, Image};
use crate::image;
use crate::journal;
use crate::lab::{Lab, SLOT_UNITS};

/// Largest private memory of an idle container's processes, in megabytes.
const PRIVATE_MB: f64 = 6.0;
/// Largest ratio of our start to the bare one.
const OURS: f64 = 1.05;

/// A way to prepare an image.
struct Profile {
    /// Name of the pool whose containers boot it.
    pool: &'static str,
    /// Name of the image.
    image: &'static str,
    /// Options of `prepare-image`.
    options: &'static [&'static str],
    /// Names of the figures.
    names: [&'static str; 6],
}

const PROFILES: [Profile; 2] = [
    Profile {
        pool: "ci",
        image: "bench-stock",
        options: &[],
        names: [
            "stock, bare: start to READY",
            "stock, bare: processor time until READY",
            "stock, ours: start to active",
            "stock, ours: processor time until active",
            "stock: processes of a spare",
            "stock: private memory of a spare",
        ],
    },
    Profile {
        pool: "lean",
        image: "bench-minimal",
        options: &["--minimal"],
        names: [
            "minimal, bare: start to READY",
            "minimal, bare: processor time until READY",
            "minimal, ours: start to active",
            "minimal, ours: processor time until active",
            "minimal: processes of a spare",
            "minimal: private memory of a spare",
        ],
    },
];

/// Prepared images, which are removed at the end.
struct Images(Vec<PathBuf>);

impl Drop for Images {
    fn drop(&mut self) {
        for image in &self.0 {
            if let Err(error) = remove_tree(image) {
                note(&format!(
                    "cannot remove an image of the benchmark: {error:#}"
                ));
            }
        }
    }
}

/// One boot, as the kernel counts it.
#[derive(Debug, Clone, Copy)]
struct Boot {
    cpu_ms: f64,
    processes: f64,
    private_mb: f64,
}

/// Boots so many containers of each kind, in turns; true if every goal is reached.
pub fn bench(boots: usize, json: Option<&Path>) -> Result<bool> {
    ensure!(
        boots >= PAIRS_MIN,
        "--pairs must be at least {PAIRS_MIN}, otherwise the medians mean nothing"
    );
    let bed = Bed::open()?;
    note("building the release binaries");
    let binaries = Binaries::build(Build::Release)?;
    let listener = binaries.path(LISTENER)?.to_owned();
    let lab = Lab::up(&bed, binaries)?;
    lab.reset()?;
    let load = daemon::quiet_load()?;
    let mut config = Config::small(lab.sim().api_url());
    config = config.with("ci", |pool| pool.max_runners = 2);
    let mut lean = config.pools[0].clone();
    "lean".clone_into(&mut lean.name);
    "lean".clone_into(&mut lean.label);
    lean.offset = 8;
    config.pools.push(lean);
    lab.install(&config)?;
    let mut images = Images(Vec::new());
    for (profile, pool) in PROFILES.iter().zip(&mut config.pools) {
        let made = image::prepare_with(lab.host(), profile.image, &listener, profile.options)?;
        images.0.push(made);
        pool.image = Image::Directory(image::inside(profile.image));
    }
    lab.install(&config)?;
    let figures = measure(&lab, boots)?;
    lab.reset()?;
    drop(images);
    figures::report(&figures, ABOUT, json, || {
        Ok(json!({
            "version": 1,
            "machine": daemon::machine()?,
            "load_before": load,
            "clock": "CLOCK_REALTIME",
            "boots": boots,
        }))
    })
}

/// Explanation of the figures, printed below the table.
const ABOUT: &str = "\
Times are those of systemd's messages, from \"Starting\" to \"Started\". Processor time is that of the unit's control group,
read after its start; ours has the launcher and its children. Private memory is the anonymous memory of
the container's processes, and the files in its /run.";

fn measure(lab: &Lab, boots: usize) -> Result<Vec<Figure>> {
    let host = lab.host();
    let paths = PROFILES.map(|profile| image::inside(profile.image));
    let floor = Floor::prepare_each(
        host,
        &paths.each_ref().map(String::as_str),
        "runner-ci@.service",
    )?;
    let ours = PROFILES.map(|profile| format!("runner-{}@1.service", profile.pool));
    let _sockets = PROFILES
        .iter()
        .map(|profile| waiting_socket(lab, &format!("{}-1", profile.pool)))
        .collect::<Result<Vec<_>>>()?;
    let units: Vec<&String> = floor.units().iter().chain(&ours).collect();
    // The first boot of each is not measured, because the page cache is still cold.
    for unit in &units {
        boot(lab, unit)?;
    }
    let mark = journal::mark(host)?;
    note(&format!("{boots} boots of {} kinds, in turns", units.len()));
    let mut samples: Vec<Vec<Boot>> = vec![Vec::new(); units.len()];
    for turn in 0..boots {
        for at in 0..units.len() {
            // Each kind follows each of its neighbours equally often.
            let kind = if turn % 2 == 0 {
                at
            } else {
                units.len() - 1 - at
            };
            samples[kind].push(boot(lab, units[kind])?);
        }
    }
    let mut spans = journal::spans(&journal::since(host, &mark, floor::UNITS)?);
    spans.extend(journal::spans(&journal::since(host, &mark, SLOT_UNITS)?));
    let times: Vec<Vec<f64>> = units
        .iter()
        .map(|unit| {
            let of_unit = spans.iter().filter(|span| span.unit == **unit);
            of_unit
                .filter_map(|span| Some(millis(span.started_us? - span.starting_us)))
                .collect()
        })
        .collect();
    Ok(figures_of(&times, &samples))
}

fn figures_of(times: &[Vec<f64>], samples: &[Vec<Boot>]) -> Vec<Figure> {
    let count = PROFILES.len();
    let of = |kind: usize, value: fn(&Boot) -> f64| samples[kind].iter().map(value).collect();
    let stock = median(&times[0]);
    let mut figures = Vec::new();
    for (number, profile) in PROFILES.iter().enumerate() {
        let [bare, bare_cpu, ours, ours_cpu, processes, private] = profile.names;
        let floor = median(&times[number]);
        let ready = Figure::plain(bare, "ms", Source::Systemd, times[number].clone());
        let share = format!(
            " (half of the stock image's {stock:.0}; this is {:.2}×)",
            floor / stock
        );
        figures.push(if number == 0 {
            ready
        } else {
            ready.at_most(0.5 * stock, share)
        });
        let cpu = |boot: &Boot| boot.cpu_ms;
        figures.push(Figure::plain(
            bare_cpu,
            "ms",
            Source::Kernel,
            of(number, cpu),
        ));
        let active = &times[count + number];
        let ratio = format!(
            " (1× is the floor's {floor:.0}, this is {:.2}×)",
            median(active) / floor
        );
        figures.push(
            Figure::plain(ours, "ms", Source::Systemd, active.clone()).at_most(OURS * floor, ratio),
        );
        figures.push(Figure::plain(
            ours_cpu,
            "ms",
            Source::Kernel,
            of(count + number, cpu),
        ));
        let processes_of = of(number, |boot| boot.processes);
        figures.push(Figure::plain(processes, "", Source::Kernel, processes_of));
        figures.push(
            Figure::plain(
                private,
                "MB",
                Source::Kernel,
                of(number, |boot| boot.private_mb),
            )
            .at_most(PRIVATE_MB, ""),
        );
    }
    figures
}

/// Boots and stops one container.
fn boot(lab: &Lab, unit: &str) -> Result<Boot> {
    let host = lab.host();
    host.run(&["systemctl", "start", unit])?;
    let group = lab.show(unit, "ControlGroup")?;
    let cpu = usage::cpu(host, &group)?;
    let pids = host.processes(&format!("{group}/payload"))?;
    let private = private_bytes(&pids)?;
    host.run(&["systemctl", "stop", unit])?;
    Ok(Boot {
        cpu_ms: cpu.as_secs_f64() * 1000.0,
        processes: daemon::number(pids.len() as u64),
        private_mb: daemon::megabytes(private),
    })
}

/// Returns the anonymous memory of processes in a container, and the files in its `/run`, in bytes. A page that several
/// processes map counts in equal parts for each. A process that has ended maps nothing.
fn private_bytes(pids: &[i32]) -> Result<u64> {
    let anonymous = |pid: &i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        usage::field(&text, "Pss_Anon:").unwrap_or_default() * 1024
    };
    let first = pids.first().context("the container has no process")?;
    let run = statfs(format!("/proc/{first}/root/run").as_str())?;
    let files = (run.blocks() - run.blocks_free()) * u64::try_from(run.block_size())?;
    Ok(pids.iter().map(anonymous).sum::<u64>() + files)
}
