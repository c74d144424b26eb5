//! Checks the invariants of a run from outside the daemon, and reports a violation at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use github_sim::RequestRecord;

use crate::config::Config;
use crate::lab::{DAEMON, Lab};

use super::log::RunLog;
use super::stop::sleep_unless;
use super::targets;

/// Interval between two checks.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Maximum age of a call that was sent before a limit and arrives after it.
const IN_FLIGHT_MS: u64 = 500;

/// Checks until `stop` is set.
pub(super) fn check_until(lab: &Lab, log: &RunLog, config: &Config, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // GitHub may be away. The next check reads the same history.
        check(lab, log, config).ok();
        sleep_unless(CHECK_EVERY, stop);
    }
}

/// Checks once: units per pool, jobs lost or run twice, calls sent while limited.
pub(super) fn check(lab: &Lab, log: &RunLog, config: &Config) -> Result<()> {
    let mut used: BTreeMap<String, u16> = BTreeMap::new();
    for unit in targets::units(lab.host()) {
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
            log.violation(
                "max_runners exceeded",
                &format!("{count} units of pool {}", pool.name),
            );
        }
    }
    let outcomes = log.classify_jobs(lab)?;
    for (job, story) in &outcomes.twice {
        if log.violation(&format!("{job} ran twice"), story) {
            print_journal(lab, story);
        }
    }
    for (job, story) in &outcomes.lost {
        if log.violation(&format!("{job} is lost"), story) {
            print_journal(lab, story);
        }
    }
    let requests = lab.sim().stats()?.requests;
    let early = |request: &&RequestRecord| request.limited_ms.is_some_and(|ms| ms > IN_FLIGHT_MS);
    if let Some(request) = requests.iter().find(early) {
        log.violation("call sent while limited", &format!("{request:?}"));
    }
    Ok(())
}

/// Prints the last two minutes of the daemon's and the slots' journal, to explain a violation.
fn print_journal(lab: &Lab, story: &str) {
    let journal = lab.host().run(&[
        "journalctl",
        "--no-pager",
        "--output=short-precise",
        "--since=-120s",
        "--lines=250",
        "--unit",
        DAEMON,
        "--unit=runner-*@*.service",
    ]);
    stdio::progress(format_args!(
        "--- {story}\n{}---",
        journal.unwrap_or_else(|error| format!("{error:#}\n"))
    ));
}
