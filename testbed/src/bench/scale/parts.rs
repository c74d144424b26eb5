//! Processor time by the part that spent it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::bench::figures::{Figure, Source};
use crate::bench::usage::cpu;
use crate::host::TestHost;

/// Interval between two readings of the containers' control groups. Their last milliseconds are counted elsewhere.
const INTERVAL: Duration = Duration::from_millis(5);

/// Control groups of the host whose time stays readable: the part, and its group.
const LASTING: [(Part, &str); 6] = [
    (Part::Daemon, "system.slice/runner-controller.service"),
    (Part::Systemd, "init.scope"),
    (Part::Journal, "system.slice/systemd-journald.service"),
    (Part::Bus, "system.slice/dbus.service"),
    (Part::Polkit, "system.slice/polkit.service"),
    (Part::GitHub, "system.slice/github-sim.service"),
];
/// Slice of the units of containers, those of the floor included.
const SLICE: &str = "runners.slice";

/// A part of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// All of the host.
    All,
    /// The container's systemd and everything below it: boot, listener, job and stop.
    Guest,
    /// systemd-nspawn, the launcher's relays, and `connect`.
    Nspawn,
    /// The rest of the units: the launcher before it becomes systemd-nspawn, and `sweep`.
    Programs,
    Daemon,
    /// The host's process 1.
    Systemd,
    Journal,
    Bus,
    Polkit,
    /// The stand-in for GitHub.
    GitHub,
}

/// Processor time of each part.
pub(super) type Spent = BTreeMap<Part, Duration>;

/// Readings of the groups that last.
fn lasting(host: &TestHost) -> Result<Spent> {
    let mut all = Spent::from([
        (Part::All, cpu(host, "/")?),
        (Part::Programs, cpu(host, SLICE)?),
    ]);
    for (part, group) in LASTING {
        // The floor runs without a daemon.
        all.insert(part, cpu(host, group).unwrap_or_default());
    }
    Ok(all)
}

/// Returns the time of each part since earlier readings. `guest` and `nspawn` are the times of these parts.
fn since(host: &TestHost, before: &Spent, guest: Duration, nspawn: Duration) -> Result<Spent> {
    let mut spent = lasting(host)?;
    for (part, time) in &mut spent {
        // A part that began anew counts from zero.
        let earlier = before.get(part).copied().unwrap_or_default();
        *time = time.checked_sub(earlier).unwrap_or(*time);
    }
    if let Some(programs) = spent.get_mut(&Part::Programs) {
        *programs = programs.saturating_sub(guest + nspawn);
    }
    spent.extend([(Part::Guest, guest), (Part::Nspawn, nspawn)]);
    Ok(spent)
}

/// Runs `work`, which starts the units and leaves them running, and returns the processor time of each part meanwhile.
pub(super) fn spent_on_new<T>(
    host: &TestHost,
    units: &[String],
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Spent)> {
    let before = lasting(host)?;
    let done = work()?;
    let sum = |name: &str| -> Result<Duration> {
        let times = units
            .iter()
            .map(|unit| cpu(host, &format!("{unit}/{name}")));
        times.sum()
    };
    let spent = since(host, &before, sum("payload")?, sum("supervisor")?)?;
    Ok((done, spent))
}

/// Runs `work`, in which units start and end, and returns the processor time of each part meanwhile. `units` are their
/// control groups, relative to the host's root.
pub(super) fn spent<T>(
    host: &TestHost,
    units: &[String],
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Spent)> {
    let groups = |name: &str| -> Vec<String> {
        let groups = units.iter().map(|unit| format!("{unit}/{name}"));
        groups.collect()
    };
    let (guests, nspawns) = (groups("payload"), groups("supervisor"));
    let before = lasting(host)?;
    let is_over = AtomicBool::new(false);
    let (done, guest, nspawn) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut guest, mut nspawn) = (Sum::default(), Sum::default());
            loop {
                // The last reading comes after the end of the work.
                let is_last = is_over.load(Ordering::SeqCst);
                guest.read(host, &guests);
                nspawn.read(host, &nspawns);
                if is_last {
                    return (guest.total, nspawn.total);
                }
                std::thread::sleep(INTERVAL);
            }
        });
        let done = work();
        is_over.store(true, Ordering::SeqCst);
        let (guest, nspawn) = reader.join().unwrap_or_default();
        (done, guest, nspawn)
    });
    Ok((done?, since(host, &before, guest, nspawn)?))
}

/// Returns the control groups of the pool's units, relative to the host's root.
pub(super) fn slots(count: u16) -> Vec<String> {
    let units = (1..=count).map(|slot| below_slice(&format!("runner-ci@{slot}.service")));
    units.collect()
}

/// Returns the control group of a unit with the properties of the pool's template.
pub(super) fn below_slice(unit: &str) -> String {
    format!("{SLICE}/runners-ci.slice/{unit}")
}

/// Parts that are shown: the part, and the names of its figures for the floor and for our containers.
const SHOWN: [(Part, &str, &str); 10] = [
    (
        Part::All,
        "floor: processor, all of the host",
        "ours: processor, all of the host",
    ),
    (Part::Guest, "…guest", "…guest"),
    (
        Part::Nspawn,
        "…systemd-nspawn",
        "…systemd-nspawn, relays and connect",
    ),
    (
        Part::Programs,
        "…before systemd-nspawn",
        "…launch and sweep",
    ),
    (Part::Systemd, "…the host's systemd", "…the host's systemd"),
    (Part::Daemon, "", "…daemon"),
    (Part::Journal, "…journald", "…journald"),
    (Part::Bus, "…D-Bus", "…D-Bus"),
    (Part::Polkit, "", "…polkit"),
    (Part::GitHub, "", "…stand-in for GitHub"),
];

/// Returns the milliseconds of each part for one container, from the times of `count` containers.
pub(super) fn figures(floor: &[Spent], ours: &[Spent], count: f64) -> Vec<Figure> {
    let samples = |spent: &[Spent], part: Part| -> Vec<f64> {
        let times = spent.iter().map(|spent| spent.get(&part));
        let times = times.map(|time| time.copied().unwrap_or_default());
        times
            .map(|time| time.as_secs_f64() * 1000.0 / count)
            .collect()
    };
    let figure = |name, samples| Figure::plain(name, "ms", Source::Kernel, samples);
    let floor = SHOWN
        .iter()
        .filter(|(_, name, _)| !name.is_empty())
        .map(|(part, name, _)| figure(name, samples(floor, *part)));
    let ours = SHOWN
        .iter()
        .map(|(part, _, name)| figure(name, samples(ours, *part)));
    floor.chain(ours).collect()
}

/// Time of control groups that end and are made again under the same name.
#[derive(Debug, Default)]
struct Sum {
    last: BTreeMap<String, Duration>,
    total: Duration,
}

impl Sum {
    fn read(&mut self, host: &TestHost, groups: &[String]) {
        for group in groups {
            self.add(group, cpu(host, group).ok());
        }
    }

    /// Adds the time since the last reading. The first reading of a group only begins its count, unless the group is
    /// new.
    fn add(&mut self, group: &str, now: Option<Duration>) {
        let before = self.last.get(group).copied();
        let now = now.unwrap_or_default();
        if let Some(before) = before {
            // A smaller value is another group's.
            self.total += now.checked_sub(before).unwrap_or(now);
        }
        self.last.insert(group.to_owned(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_made_again_is_added() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let mut sum = Sum::default();
        for now in [ms(100), ms(130), None, ms(5), ms(25), ms(10)] {
            sum.add("a", now);
        }
        assert_eq!(sum.total, Duration::from_millis(30 + 5 + 20 + 10));
    }
}
