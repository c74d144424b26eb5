//! Claims of the demo, each checked on the running host.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use github_sim::{Conclusion, JobView, Stats};
use status::{PhaseKind, RunnerStatus};

use super::account::{self, Ran};
use super::clock::seconds;
use super::jobs;
use crate::bed::last_lines;
use crate::binaries::CONTROLLER;
use crate::config::Config;
use crate::lab::{DAEMON, Lab};
use crate::settle::await_listening;

/// For a state that comes by itself, on a machine that is busy with other things.
const SOON: Duration = Duration::from_mins(1);
/// The longest median of turnarounds that the demo is content with. It compiles meanwhile on all
/// cores, so this is not a benchmark; `cargo bench-life` is one.
const TURNAROUND_MAX_MS: u64 = 3000;
/// GitHub calls per job that we are content with, in hundredths.
const CALLS_PER_JOB_MAX: u64 = 105;

/// One thing that was checked.
pub(super) struct Claim {
    pub(super) holds: bool,
    pub(super) text: String,
}

impl Claim {
    pub(super) fn new(holds: bool, text: String) -> Self {
        Self { holds, text }
    }
}

/// Prints claims, and the state of the host if one does not hold; true if all hold.
pub(super) fn show(lab: &Lab, claims: &[Claim]) -> bool {
    for claim in claims {
        stdio::progress(format_args!(
            "{} {}",
            if claim.holds { '✓' } else { '✗' },
            claim.text
        ));
    }
    let holds = claims.iter().all(|claim| claim.holds);
    if !holds {
        stdio::progress(format_args!("\n{}", lab.account()));
    }
    holds
}

pub(super) fn done(ran: &[Ran]) -> Claim {
    let good = ran
        .iter()
        .filter(|ran| ran.job.conclusion == Some(Conclusion::Success))
        .count();
    let judged = ran
        .iter()
        .filter(|ran| ran.verdict.as_deref() == Some("job_done"))
        .count();
    let mut text =
        format!("20 jobs are done: {good} succeeded, {judged} runners have the verdict job_done");
    let bad = ran
        .iter()
        .find(|ran| ran.job.conclusion != Some(Conclusion::Success));
    if let Some(Ran { job, .. }) = bad {
        text.push_str(&said(job));
    }
    Claim::new(ran.len() == 20 && good == 20 && judged == 20, text)
}

/// A job that did not do as claimed, in its own words.
pub(super) fn said(job: &JobView) -> String {
    format!(
        "; {} said:\n{}",
        job.summary(),
        last_lines(&job.facts.log_tail, 15)
    )
}

pub(super) fn different(ran: &[Ran]) -> Claim {
    let (runs, boots) = account::containers(ran);
    Claim::new(
        runs == 20 && boots == 20,
        format!(
            "in 20 different containers: {runs} starts in systemd's journal, {boots} boot ids of their own"
        ),
    )
}

pub(super) fn isolated(ran: &[Ran]) -> Claim {
    let seen: Vec<(u32, u32)> = ran
        .iter()
        .filter_map(|ran| jobs::marks_seen(&ran.job))
        .collect();
    let own: u32 = seen.iter().map(|(own, _)| own).sum();
    let foreign: u32 = seen.iter().map(|(_, foreign)| foreign).sum();
    let looked = seen.iter().filter(|(own, _)| *own == jobs::MARKS).count();
    let mut text = format!(
        "no job saw another's marks: {looked} jobs searched everything and found {own} of their own, {foreign} foreign"
    );
    let odd = ran
        .iter()
        .find(|ran| jobs::marks_seen(&ran.job).is_none_or(|seen| seen != (jobs::MARKS, 0)));
    if let Some(Ran { job, .. }) = odd {
        text.push_str(&said(job));
    }
    Claim::new(looked == 20 && foreign == 0, text)
}

/// After the last job: one runner that listens and one spare in each pool, by everybody's account.
pub(super) fn settled(lab: &Lab) -> Claim {
    let look = || -> Result<(bool, String)> {
        let status = await_listening(lab, SOON)?;
        let units = lab.containers()?;
        let machines = lab.machines()?;
        let active: BTreeSet<String> = units
            .iter()
            .filter(|unit| unit.state == "active")
            .map(|unit| unit.machine.clone())
            .collect();
        let known: BTreeSet<String> = status.runners().map(RunnerStatus::machine).collect();
        let spare = status.in_phase(PhaseKind::Spare).len();
        let text = format!(
            "{} units, {} machines, {} known to the daemon: {} that listen, {spare} spare",
            units.len(),
            machines.len(),
            known.len(),
            known.len() - spare,
        );
        let agreed = active.len() == units.len() && active == machines && active == known;
        Ok((agreed, text))
    };
    let (holds, text) = look().unwrap_or_else(|error| (false, format!("{error:#}")));
    Claim::new(holds, format!("none alive that should not be: {text}"))
}

pub(super) fn drain(lab: &Lab) -> Claim {
    let start = Instant::now();
    let empty = lab
        .host()
        .run(&[CONTROLLER, "drain", "--wait", "--timeout", "60s"])
        .and_then(|_| lab.await_nothing_left(SOON));
    match empty {
        Ok(()) => Claim::new(
            true,
            format!(
                "nothing is left {:.1} s after drain: 0 units, machines, mounts, interfaces, directories, processes, loop devices, layers, cgroups and registrations",
                start.elapsed().as_secs_f64()
            ),
        ),
        Err(error) => Claim::new(false, format!("nothing is left after drain: {error:#}")),
    }
}

/// `working` was counted after the last job, `drained` after the drain. A runner that waits was
/// minted for a job that is still to come.
pub(super) fn calls_per_job(
    ran: &[Ran],
    config: &Config,
    working: &Stats,
    drained: &Stats,
) -> Claim {
    let jobs = ran.len() as u64;
    let waiting: u64 = config
        .pools
        .iter()
        .map(|pool| u64::from(pool.min_idle))
        .sum();
    let (mints, deletes, lists) = (
        working.calls_of("mint"),
        working.calls_of("delete"),
        working.calls_of("list"),
    );
    let others = working.rest_calls() - mints - deletes - lists;
    let for_jobs = (mints + deletes + others).saturating_sub(waiting);
    #[expect(clippy::cast_precision_loss, reason = "a few dozen calls")]
    let per_job = for_jobs as f64 / jobs as f64;
    Claim::new(
        for_jobs * 100 <= jobs * CALLS_PER_JOB_MAX,
        format!(
            "{per_job:.2} GitHub calls per job: {mints} mints, of them {waiting} for the runners that wait, {deletes} deletes and \
             {others} others; beside them {lists} lists, and {} deletes to drain",
            drained.calls_of("delete") - deletes,
        ),
    )
}

pub(super) fn turnaround(ran: &[Ran]) -> Claim {
    let gaps = account::turnarounds(ran);
    let Some(median) = gaps.get(gaps.len() / 2) else {
        return Claim::new(false, "turnaround: no job waited for another".into());
    };
    let longest = gaps.last().copied().unwrap_or_default();
    Claim::new(
        *median <= TURNAROUND_MAX_MS,
        format!(
            "{:.2} s median turnaround (longest {:.2} s, {} times): from a job's end to the next job's start in the same slot, in a new container",
            seconds(*median),
            seconds(longest),
            gaps.len()
        ),
    )
}

pub(super) fn daemon_process(lab: &Lab) -> Result<Claim> {
    let pid = lab.show(DAEMON, "MainPID")?;
    let status = lab.host().run(&["cat", &format!("/proc/{pid}/status")])?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or_default()
            .to_owned()
    };
    let uids = field("Uid");
    let caps: Vec<String> = ["CapEff", "CapPrm", "CapBnd"].map(&field).into();
    let user = lab.host().run(&["ps", "-o", "user:32=", "-p", &pid])?;
    ensure!(!uids.is_empty(), "process {pid} has no status");
    let unprivileged = uids.split_whitespace().all(|uid| uid != "0")
        && caps.iter().all(|caps| caps.trim_matches('0').is_empty());
    Ok(Claim::new(
        unprivileged,
        format!(
            "the daemon is not root: user {} (uid {}), capabilities {}",
            user.trim(),
            uids.split_whitespace().next().unwrap_or("?"),
            if unprivileged {
                "none".into()
            } else {
                caps.join(" ")
            }
        ),
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use super::*;

    #[test]
    fn a_runner_that_waits_is_not_a_waste() {
        let stats = |mints: u64| Stats {
            calls: BTreeMap::from([("mint".into(), BTreeMap::from([("201".into(), mints)]))]),
            while_limited: 0,
            requests: VecDeque::new(),
        };
        let job = |id: u64| JobView {
            id,
            conclusion: None,
            ..crate::sim::example_job()
        };
        let ran = account::spans_of((0..20).map(job).collect(), &[], &[]);
        let config = crate::demo::config("http://198.51.100.7:8080");
        assert!(calls_per_job(&ran, &config, &stats(22), &stats(22)).holds);
        assert!(!calls_per_job(&ran, &config, &stats(24), &stats(24)).holds);
    }
}
