//! The time from a runner's exit until the next runner in its slot asks for its config, by what the runner left.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use status::{PhaseKind, RunnerStatus, Status};

use super::parts::below_slice;
use crate::bed::note;
use crate::bench::figures::{Figure, Source, median};
use crate::bench::floor::{self, Floor};
use crate::bench::stamps::{Collector, Image};
use crate::bench::start::{SOON, begin};
use crate::bench::timeline::{LaterIn, Moment, SlotEvent, gaps};
use crate::bench::{events_since, one_pool};
use crate::journal;
use crate::lab::Lab;
use crate::settle::await_listening;
use crate::sim::pool_job;

/// Timeout for a job that makes a million files.
const LONG: Duration = Duration::from_mins(3);
/// Maximum of a runner that left much, as a multiple of an empty one.
const RATIO_MAX: f64 = 1.05;
/// Maximum of an empty runner, as a multiple of a bare stop and a bare start.
const FLOOR_RATIO_MAX: f64 = 1.05;

/// Things that a runner leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// A million files in the layer, or as many as it allows.
    Files,
    /// As many control groups as the bounds of the container allow.
    Groups,
}

/// Kinds of runners, and the names of their figures. The first one leaves nothing.
const KINDS: [(Left, &str); 3] = [
    (Left::Nothing, "exit to the next, empty runner"),
    (Left::Files, "exit to the next, files in the layer"),
    (Left::Groups, "exit to the next, control groups"),
];

/// Makes a million files, or as many as the layer allows, and tells their number.
const MANY_FILES: &str = r#"perl -e '
my $made = 0;
DIRECTORY: for my $directory (1 .. 100) {
    mkdir "/tmp/$directory" or last;
    for (1 .. 10000) { open(my $file, ">", "/tmp/$directory/$_") or last DIRECTORY; $made++ }
}
print "left $made\n"'"#;

/// Measures each kind of runner so many times, in turns with a bare container.
pub(super) fn figures(
    lab: &Lab,
    collector: &Collector,
    stamped: &Path,
    turns: usize,
) -> Result<Vec<Figure>> {
    let image = Image::make(lab.host(), "bench-stamped", stamped, false)?;
    let config = one_pool(lab, image.path()).with("ci", |pool| {
        // A file of the layer for each 4 KiB.
        (pool.layer_size, pool.memory) = ("4 GiB".into(), "8 GiB".into());
    });
    begin(lab, &config)?;
    let floor = Floor::prepare(lab.host(), image.path(), "runner-ci@.service", 1)?;
    floor.start_and_stop()?;
    turn(lab, collector, Left::Nothing)?;
    note(&format!(
        "{turns} turns of a bare container and {} kinds of runners",
        KINDS.len()
    ));
    let mark = journal::mark(lab.host())?;
    let mut times = KINDS.map(|_| Vec::new());
    let mut left = KINDS.map(|_| String::new());
    for _ in 0..turns {
        floor.start_and_stop()?;
        for (number, (kind, _)) in KINDS.iter().enumerate() {
            let (time, said) = turn(lab, collector, *kind)?;
            times[number].push(time);
            left[number] = said;
        }
    }
    let units = journal::since(lab.host(), &mark, floor::UNITS)?;
    let (start, stop) = floor::times(&journal::spans(&units));
    drop(floor);
    lab.reset()?;
    drop(image);
    let bare = median(&start) + median(&stop);
    let empty = median(&times[0]);
    let mut figures = vec![
        Figure::plain("floor: start to READY", "ms", Source::Systemd, start),
        Figure::plain("floor: stop to gone", "ms", Source::Systemd, stop),
    ];
    for (((_, name), times), left) in KINDS.iter().zip(times).zip(left) {
        let is = median(&times);
        let figure = Figure::plain(name, "ms", Source::DaemonAndRunner, times);
        figures.push(if left.is_empty() {
            let ratio = is / bare;
            let note = format!(" (1 × is the floor's {bare:.0}, this is {ratio:.2} ×)");
            figure.at_most(FLOOR_RATIO_MAX * bare, note)
        } else {
            let note = format!(" ({left}; this is {:.2} × the empty one)", is / empty);
            figure.at_most(RATIO_MAX * empty, note)
        });
    }
    Ok(figures)
}

/// Runs a job. Returns the milliseconds from its runner's exit until the slot has a spare again, and what it left.
fn turn(lab: &Lab, collector: &Collector, kind: Left) -> Result<(f64, String)> {
    let status = await_listening(lab, SOON)?;
    let (script, mut left) = match kind {
        Left::Nothing => ("true", String::new()),
        Left::Files => (MANY_FILES, String::new()),
        Left::Groups => ("true", format!("{} left", fill_groups(lab, &status)?)),
    };
    collector.take();
    let mark = journal::mark(lab.host())?;
    let id = lab.sim().queue(&pool_job("turn", "ci", script))?;
    let job = lab.sim().await_success(id, LONG)?;
    await_listening(lab, LONG)?;
    let events = events_since(lab, collector, &mark)?;
    let time = sample(&events).with_context(|| format!("no end of a job that leaves {kind:?}"))?;
    if kind == Left::Files {
        let mut lines = job.facts.log_tail.lines();
        let count = lines.find_map(|line| line.split_once("left ")?.1.split(' ').next());
        left = format!("{} left", count.context("the job told no number of files")?);
    }
    Ok((time, left))
}

/// Makes control groups in the container that listens, until its bounds refuse one. Returns their number.
fn fill_groups(lab: &Lab, status: &Status) -> Result<usize> {
    let listens =
        |runner: &&RunnerStatus| matches!(runner.phase, PhaseKind::Registering | PhaseKind::Idle);
    let runner = status
        .runners()
        .find(listens)
        .context("no runner listens")?;
    let unit = below_slice(&runner.unit);
    let payload = lab.host().path(&format!("/sys/fs/cgroup/{unit}/payload"));
    let made =
        (1..).take_while(|number| fs::create_dir(payload.join(format!("left-{number}"))).is_ok());
    let made = made.count();
    ensure!(
        made > 0,
        "cannot make a control group in {}",
        payload.display()
    );
    Ok(made)
}

fn sample(events: &[SlotEvent]) -> Option<f64> {
    let found = gaps(events, Moment::Exit, Moment::Spare, LaterIn::SameSlot);
    found.first().copied()
}
