//! Many jobs that are queued at once, over a few slots.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use github_sim::{Conclusion, JobSpec};

use super::many::fast;
use crate::bed::note;
use crate::bench::daemon::number;
use crate::bench::figures::{Figure, Source, median};
use crate::bench::floor::Floor;
use crate::bench::stamps::{Collector, Image};
use crate::bench::start::{SOON, begin};
use crate::bench::timeline::{LaterIn, Moment, gaps};
use crate::bench::{events_since, one_pool};
use crate::journal;
use crate::lab::Lab;
use crate::settle::await_listening;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

/// Jobs that are queued at once.
const JOBS: usize = 40;
/// Slots of the pool.
const SLOTS: u16 = 10;
/// Maximum of our time, as a multiple of the ideal.
const RATIO_MAX: f64 = 1.15;
/// Timeout for a burst.
const ALL: Duration = Duration::from_mins(3);

/// Measures so many bursts, in turns with bare containers in as many slots.
pub(super) fn figures(
    lab: &Lab,
    collector: &Collector,
    stamped: &Path,
    bursts: usize,
) -> Result<Vec<Figure>> {
    let image = Image::make(lab.host(), "bench-stamped", stamped, false)?;
    let mut config = one_pool(lab, image.path()).with("ci", |pool| {
        (pool.min_idle, pool.min_spare, pool.max_runners) = (SLOTS / 2, SLOTS / 2, SLOTS);
    });
    fast(&mut config);
    begin(lab, &config)?;
    // Jobs after the first of each slot wait for so many stops and starts.
    let turns = JOBS / usize::from(SLOTS) - 1;
    let floor = Floor::prepare(
        lab.host(),
        image.path(),
        "runner-ci@.service",
        usize::from(SLOTS),
    )?;
    note(&format!(
        "{bursts} times {JOBS} jobs over {SLOTS} slots, in turns with {turns} stops and starts of {SLOTS} bare containers"
    ));
    let (mut bare, mut last, mut alone, mut mint) = (vec![], vec![], vec![], vec![]);
    for burst in 0..=bursts {
        lab.stop()?;
        floor.start()?;
        let time = floor.restart(turns)?.as_secs_f64() * 1000.0;
        floor.stop()?;
        lab.start()?;
        await_listening(lab, SOON)?;
        let job = one_alone(lab, collector)?;
        let (until_last, answers) = whole_burst(lab, collector)?;
        // The page cache is still cold in the first burst.
        if burst > 0 {
            bare.push(time);
            alone.push(job);
            last.push(until_last);
            mint.extend(answers);
        }
    }
    drop(floor);
    lab.reset()?;
    drop(image);
    let waves = number(u64::try_from(turns)?);
    let ideal = median(&bare) + waves * median(&alone) + (waves + 1.0) * median(&mint);
    let ratio = median(&last) / ideal;
    Ok(vec![
        Figure::plain(
            "floor: three stops and starts in 10 slots",
            "ms",
            Source::Kernel,
            bare,
        ),
        Figure::plain(
            "a job alone: config answered to its end",
            "ms",
            Source::DaemonAndRunner,
            alone,
        ),
        Figure::plain(
            "the stand-in's answer to a mint",
            "ms",
            Source::Daemon,
            mint,
        ),
        Figure::plain(
            "40 jobs queued until the last one runs",
            "ms",
            Source::StandIn,
            last,
        )
        .at_most(
            RATIO_MAX * ideal,
            format!(" (the ideal is {ideal:.0}, this is {ratio:.2} ×)"),
        ),
    ])
}

/// Runs one job while nothing else happens. Returns the milliseconds of its listener and of the job: from the code of
/// its runner to its exit, without the wait for the job.
fn one_alone(lab: &Lab, collector: &Collector) -> Result<f64> {
    let mark = journal::mark(lab.host())?;
    collector.take();
    // The listeners of a full pool wait already. The second job meets one that starts.
    run(lab, usize::from(SLOTS / 2) + 1)?;
    await_listening(lab, SOON)?;
    let events = events_since(lab, collector, &mark)?;
    let found = gaps(&events, Moment::Delivered, Moment::Exit, LaterIn::SameSlot);
    found
        .iter()
        .copied()
        .reduce(f64::min)
        .context("no runner got a config and ended")
}

/// Queues all jobs at once. Returns the milliseconds until the last one runs, and the stand-in's answers to mints.
fn whole_burst(lab: &Lab, collector: &Collector) -> Result<(f64, Vec<f64>)> {
    let mark = journal::mark(lab.host())?;
    collector.take();
    let last = run(lab, JOBS)?;
    await_listening(lab, ALL)?;
    let events = events_since(lab, collector, &mark)?;
    let answers = gaps(
        &events,
        Moment::Registering,
        Moment::Delivered,
        LaterIn::SameSlot,
    );
    Ok((last, answers))
}

/// Queues jobs, waits until all have succeeded, and returns the milliseconds from the queue until the last one ran.
fn run(lab: &Lab, count: usize) -> Result<f64> {
    let jobs: Vec<JobSpec> = (1..=count)
        .map(|number| pool_job(&format!("burst-{number}"), "ci", "true"))
        .collect();
    let ids = lab.sim().queue_all(&jobs)?;
    let jobs = wait_until("all jobs to succeed", ALL, || {
        let mut jobs = lab.sim().jobs()?;
        jobs.retain(|job| ids.contains(&job.id));
        let done = jobs
            .iter()
            .filter(|job| job.conclusion == Some(Conclusion::Success))
            .count();
        Ok(if done == count {
            Seen::Done(jobs)
        } else {
            Seen::NotYet(format!("{done} of {count} succeeded"))
        })
    })?;
    let queued = jobs.iter().map(|job| job.created_at).min();
    let last = jobs.iter().filter_map(|job| job.started_at).max();
    let time = last
        .zip(queued)
        .and_then(|(last, first)| last.checked_sub(first));
    Ok(number(time.context("no job has started")?))
}
