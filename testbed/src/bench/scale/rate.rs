//! Jobs in a minute over a few slots, and the processor time of a job.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::many::fast;
use super::parts::{self, Spent, below_slice, slots, spent};
use crate::bed::note;
use crate::bench::daemon::{number, run_quick};
use crate::bench::figures::{Figure, Source};
use crate::bench::floor::Floor;
use crate::bench::start::{SOON, begin};
use crate::config::{Config, IMAGE};
use crate::lab::Lab;
use crate::settle::await_listening;

/// Slots, and containers of the floor.
const SLOTS: u16 = 4;
/// Minimum of our rate, as a part of the floor's.
const RATIO_MIN: f64 = 0.85;

/// Measures so many quick jobs, between two halves of as many starts and stops of bare containers.
pub(super) fn figures(lab: &Lab, jobs: usize) -> Result<Vec<Figure>> {
    let mut config = Config::small(lab.sim().api_url()).with("ci", |pool| {
        (pool.min_idle, pool.min_spare, pool.max_runners) = (2, 2, SLOTS);
    });
    fast(&mut config);
    begin(lab, &config)?;
    lab.stop()?;
    let floor = Floor::prepare(lab.host(), IMAGE, "runner-ci@.service", usize::from(SLOTS))?;
    let turns = jobs.div_ceil(2 * usize::from(SLOTS));
    note(&format!(
        "{jobs} quick jobs, between twice {turns} stops and starts of {SLOTS} bare containers each"
    ));
    floor.start()?;
    let first = bare(lab, &floor, turns)?;
    floor.stop()?;

    lab.start()?;
    await_listening(lab, SOON)?;
    let (time, ours) = spent(lab.host(), &slots(SLOTS), || {
        let start = Instant::now();
        run_quick(lab, jobs)?;
        let time = start.elapsed();
        // Each job costs a whole runner.
        await_listening(lab, SOON)?;
        Ok(time)
    })?;
    lab.reset()?;
    begin(lab, &config)?;
    lab.stop()?;
    floor.start()?;
    let second = bare(lab, &floor, turns)?;
    drop(floor);
    lab.reset()?;

    let cycles = number(u64::try_from(2 * turns * usize::from(SLOTS))?);
    let per_minute = |count: f64, time: Duration| count / time.as_secs_f64() * 60.0;
    let bare_rate = per_minute(cycles, first.0 + second.0);
    let jobs = number(u64::try_from(jobs)?);
    let rate = per_minute(jobs, time);
    let ratio = rate / bare_rate;
    let mut figures = vec![
        Figure::plain(
            "floor: stops and starts in a minute",
            "1/min",
            Source::Kernel,
            vec![bare_rate],
        ),
        Figure::plain(
            "jobs in a minute over 4 slots",
            "1/min",
            Source::StandIn,
            vec![rate],
        )
        .at_least(
            RATIO_MIN * bare_rate,
            format!(" (this is {ratio:.2} × the floor)"),
        ),
    ];
    figures.append(&mut parts::figures(&[first.1, second.1], &[], cycles / 2.0));
    figures.append(&mut parts::figures(&[], &[ours], jobs));
    figures.retain(|figure| !figure.samples.is_empty());
    Ok(figures)
}

/// Stops and starts each bare container so many times, all of them at once. Returns the time and the processor time.
fn bare(lab: &Lab, floor: &Floor<'_>, turns: usize) -> Result<(Duration, Spent)> {
    let units: Vec<String> = floor.units().iter().map(|unit| below_slice(unit)).collect();
    spent(lab.host(), &units, || floor.restart(turns))
}
