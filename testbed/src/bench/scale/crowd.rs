//! Many containers that boot from nothing, and the memory of idle ones.

use std::time::Duration;

use anyhow::{Context, Result};

use super::many::{available, end_all, events_since, only_spares};
use super::memory::{self, Group};
use super::parts::{self, Part, Spent, below_slice, slots, spent_on_new};
use crate::bed::note;
use crate::bench::figures::{Figure, Source, median};
use crate::bench::floor::{self, Floor};
use crate::bench::start::install_measured;
use crate::bench::timeline::{Moment, SlotEvent, millis};
use crate::config::IMAGE;
use crate::journal::{self, Span};
use crate::lab::Lab;
use crate::settle::await_listening;

/// Timeout for all containers together.
const ALL: Duration = Duration::from_mins(3);
/// Maximum of our time and processor time, as a multiple of the floor's.
const RATIO_MAX: f64 = 1.10;

/// Rounds of one kind: the times that all containers together took.
#[derive(Debug, Default)]
struct Rounds {
    /// Milliseconds.
    wall: Vec<f64>,
    cpu: Vec<Spent>,
}

impl Rounds {
    fn add(&mut self, (wall, cpu): (f64, Spent)) {
        self.wall.push(wall);
        self.cpu.push(cpu);
    }

    /// Returns the milliseconds of the whole host.
    fn cpu_of_host(&self) -> Vec<f64> {
        let times = self.cpu.iter().filter_map(|spent| spent.get(&Part::All));
        times.map(|time| time.as_secs_f64() * 1000.0).collect()
    }
}

/// Measures `rounds` times a daemon that boots so many spares from nothing, in turns with as many bare containers.
pub(super) fn figures(lab: &Lab, count: u16, rounds: usize) -> Result<Vec<Figure>> {
    let host = lab.host();
    let few = memory::few(lab)?;
    let (mut ours, mut bare) = (Rounds::default(), Rounds::default());
    let config = only_spares(lab, count)?;
    install_measured(lab, &config)?;
    let floor = Floor::prepare(host, IMAGE, "runner-ci@.service", usize::from(count))?;
    note(&format!(
        "{rounds} times {count} spares and {count} floor containers, in turns"
    ));
    for round in 0..=rounds {
        let floor_is = bare_round(lab, &floor)?;
        install_measured(lab, &config)?;
        let we_are = spares_round(lab, count)?;
        end_all(lab)?;
        // The page cache is still cold in the first round.
        if round > 0 {
            bare.add(floor_is);
            ours.add(we_are);
        }
    }
    drop(floor);

    install_measured(lab, &config)?;
    let before = available()?;
    lab.start()?;
    let group = Group::of_new_units(host)?;
    await_listening(lab, ALL)?;
    let mut memory = memory::figures(lab, &few, count, group.as_ref(), before)?;
    end_all(lab)?;
    drop(group);

    let mut figures = times(&ours, &bare);
    figures.append(&mut parts::figures(&bare.cpu, &ours.cpu, f64::from(count)));
    figures.append(&mut memory);
    Ok(figures)
}

/// Starts the daemon and waits until all spares are ready. Returns the milliseconds from its first call of systemd until
/// the last spare, and the processor time.
fn spares_round(lab: &Lab, count: u16) -> Result<(f64, Spent)> {
    let mark = journal::mark(lab.host())?;
    let ((), spent) = spent_on_new(lab.host(), &slots(count), || {
        lab.start()?;
        await_listening(lab, ALL).map(drop)
    })?;
    let events = events_since(lab, &mark)?;
    let wall = from_first_to_last(&events).context("the daemon logged no spare")?;
    Ok((wall, spent))
}

/// Returns the milliseconds from the first start call until the last spare.
fn from_first_to_last(events: &[SlotEvent]) -> Option<f64> {
    let of = |moment| {
        events
            .iter()
            .filter(move |event| event.moment == moment)
            .map(|event| event.at_us)
    };
    let (first, last) = (of(Moment::Starting).min()?, of(Moment::Spare).max()?);
    Some(millis(last.checked_sub(first)?))
}

/// Starts and stops the bare containers. Returns the same of them.
fn bare_round(lab: &Lab, floor: &Floor<'_>) -> Result<(f64, Spent)> {
    let mark = journal::mark(lab.host())?;
    let units: Vec<String> = floor.units().iter().map(|unit| below_slice(unit)).collect();
    let ((), spent) = spent_on_new(lab.host(), &units, || floor.start())?;
    let spans = journal::spans(&journal::since(lab.host(), &mark, floor::UNITS)?);
    floor.stop()?;
    let wall = of_spans(&spans).context("systemd logged no start of the floor")?;
    Ok((wall, spent))
}

/// Returns the milliseconds from the first start until the last container is ready.
fn of_spans(spans: &[Span]) -> Option<f64> {
    let first = spans.iter().map(|span| span.starting_us).min()?;
    let last = spans.iter().filter_map(|span| span.started_us).max()?;
    Some(millis(last.checked_sub(first)?))
}

fn times(ours: &Rounds, bare: &Rounds) -> Vec<Figure> {
    let both = |unit_names: [&'static str; 2], source, ours: Vec<f64>, bare: Vec<f64>| {
        let floor = median(&bare);
        let note = format!(" (this is {:.2} ×)", median(&ours) / floor);
        [
            Figure::plain(unit_names[0], "ms", source, bare),
            Figure::plain(unit_names[1], "ms", source, ours).at_most(RATIO_MAX * floor, note),
        ]
    };
    let wall = both(
        ["floor: all started", "all spares"],
        Source::Daemon,
        ours.wall.clone(),
        bare.wall.clone(),
    );
    let cpu = both(
        ["floor: all started, processor", "all spares, processor"],
        Source::Kernel,
        ours.cpu_of_host(),
        bare.cpu_of_host(),
    );
    wall.into_iter().chain(cpu).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_lasts_from_the_first_call_to_the_last_spare() {
        let event = |at_us, slot: &str, moment| SlotEvent {
            at_us,
            slot: slot.into(),
            moment,
        };
        let events = [
            event(1000, "ci-1", Moment::Starting),
            event(2000, "ci-2", Moment::Starting),
            event(9000, "ci-2", Moment::Spare),
            event(4000, "ci-1", Moment::Spare),
        ];
        assert_eq!(from_first_to_last(&events), Some(8.0));
        assert_eq!(from_first_to_last(&events[..2]), None);
    }

    #[test]
    fn more_than_a_tenth_above_the_floor_misses_the_goal() {
        let rounds = |wall, cpu| Rounds {
            wall: vec![wall],
            cpu: vec![Spent::from([(Part::All, Duration::from_millis(cpu))])],
        };
        let figures = times(&rounds(1090.0, 1110), &rounds(1000.0, 1000));
        let reached: Vec<Option<bool>> = figures.iter().map(|figure| figure.reached).collect();
        assert_eq!(reached, [None, Some(true), None, Some(false)]);
    }
}
