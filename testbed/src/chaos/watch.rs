//! Looks at jobs, slots and calls all the time, and says at once what must never be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::config::Config;
use crate::lab::{DAEMON, Lab};
use crate::sim::Request;

use super::jobs::Stream;
use super::ledger::Ledger;
use super::prey;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);
/// Jobs that wait or run at once; more would only wait longer.
const MOST_OPEN: usize = 12;
/// A call that is older than a limit may come so long after it.
const ON_ITS_WAY_MS: u64 = 500;
/// How often the flags that end a thread are looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// Queues jobs until it is told to stop.
pub(super) fn feed(lab: &Lab, ledger: &Ledger, stream: &mut Stream, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Some((pause, draft)) = stream.next() else {
            return;
        };
        nap(pause, stop);
        while ledger.open() >= MOST_OPEN && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(GLANCE);
        }
        if !stop.load(Ordering::Relaxed) {
            // GitHub may be away. Whether it took the job, its own account will tell.
            ledger.send(lab, &draft).ok();
        }
    }
}

/// Looks until it is told to stop.
pub(super) fn watch(lab: &Lab, ledger: &Ledger, config: &Config, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // GitHub may be away, and the next look sees as much.
        look(lab, ledger, config).ok();
        nap(EVERY, stop);
    }
}

/// One look.
pub(super) fn look(lab: &Lab, ledger: &Ledger, config: &Config) -> Result<()> {
    let mut used: BTreeMap<String, u16> = BTreeMap::new();
    for unit in prey::units(lab.host()) {
        let pool = unit
            .machine
            .split('-')
            .next()
            .unwrap_or_default()
            .to_owned();
        *used.entry(pool).or_default() += 1;
    }
    for pool in &config.pools {
        let count = used.get(&pool.name).copied().unwrap_or_default();
        if count > pool.max_runners {
            ledger.violated(
                "max_runners",
                &format!("{count} units of pool {}", pool.name),
            );
        }
    }
    let book = ledger.reckon(lab)?;
    for (job, story) in &book.twice {
        if ledger.violated(&format!("{job} ran twice"), story) {
            tell(lab, story);
        }
    }
    for (job, story) in &book.lost {
        if ledger.violated(&format!("{job} is lost"), story) {
            tell(lab, story);
        }
    }
    let requests = lab.sim().stats()?.requests;
    let late = |request: &&Request| request.limited_ms.is_some_and(|ms| ms > ON_ITS_WAY_MS);
    if let Some(request) = requests.iter().find(late) {
        ledger.violated("a limit is not kept", &format!("{request:?}"));
    }
    Ok(())
}

/// What host and daemon said lately, for whoever has to find out why.
fn tell(lab: &Lab, story: &str) {
    let said = lab.host().run(&[
        "journalctl",
        "--no-pager",
        "--output=short-precise",
        "--since=-120s",
        "--lines=250",
        "--unit",
        DAEMON,
        "--unit=runner-*@*.service",
    ]);
    println!(
        "--- {story}\n{}---",
        said.unwrap_or_else(|error| format!("{error:#}\n"))
    );
}

/// Sleeps, but not beyond the end.
pub(super) fn nap(pause: Duration, stop: &AtomicBool) {
    let start = Instant::now();
    while start.elapsed() < pause && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(GLANCE.min(pause));
    }
}
