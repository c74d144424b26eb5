//! What the demo claims, each checked on the live host.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::account::{self, Ran};
use super::jobs;
use super::watch::seconds;
use crate::bed::last_lines;
use crate::binaries::CONTROLLER;
use crate::config::Config;
use crate::lab::{DAEMON, Lab};
use crate::sim::Job;
use crate::wait::{Seen, wait_until};

/// For a state that comes by itself, on a machine that is busy with other things.
const SOON: Duration = Duration::from_mins(1);
/// The longest median of turnarounds that the demo is content with. It compiles meanwhile on all
/// cores, so this is no benchmark; `cargo bench-life` is.
const TURNAROUND_MAX_MS: u64 = 3000;
/// GitHub calls per job that we are content with, in hundredths.
const CALLS_PER_JOB_MAX: u64 = 105;

/// One thing that was checked.
pub(super) struct Claim {
    pub(super) holds: bool,
    pub(super) text: String,
}

impl Claim {
    fn new(holds: bool, text: String) -> Self {
        Self { holds, text }
    }
}

pub(super) fn done(ran: &[Ran]) -> Claim {
    let good = ran
        .iter()
        .filter(|ran| ran.job.conclusion.as_deref() == Some("success"))
        .count();
    let judged = ran
        .iter()
        .filter(|ran| ran.verdict.as_deref() == Some("job_done"))
        .count();
    let mut text =
        format!("20 jobs are done: {good} succeeded, {judged} lives have the verdict job_done");
    let bad = ran
        .iter()
        .find(|ran| ran.job.conclusion.as_deref() != Some("success"));
    if let Some(Ran { job, .. }) = bad {
        text.push_str(&said(job));
    }
    Claim::new(ran.len() == 20 && good == 20 && judged == 20, text)
}

/// A job that did not do as claimed, in its own words.
fn said(job: &Job) -> String {
    format!(
        "; {} said:\n{}",
        job.summary(),
        last_lines(&job.facts.log_tail, 15)
    )
}

pub(super) fn different(ran: &[Ran]) -> Claim {
    let (lives, boots) = account::containers(ran);
    Claim::new(
        lives == 20 && boots == 20,
        format!(
            "in 20 different containers: {lives} lives by systemd's account, {boots} boot ids by their own"
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

/// After the last job: one idle runner and one spare in each pool, by everybody's account.
pub(super) fn settled(lab: &Lab, config: &Config) -> Claim {
    let wanted: usize = config
        .pools
        .iter()
        .map(|pool| usize::from(pool.min_idle + pool.min_spare))
        .sum();
    let look = || -> Result<(bool, String)> {
        let status = lab.status()?;
        let units = lab.containers()?;
        let machines = lab.machines()?;
        let mut phases: BTreeMap<String, usize> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for runner in status["pools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|pool| pool["runners"].as_array())
            .flatten()
        {
            let text = |key: &str| runner[key].as_str().unwrap_or("?").to_owned();
            *phases.entry(text("phase")).or_default() += 1;
            known.insert(text("machine"));
        }
        let active: BTreeSet<String> = units
            .iter()
            .filter(|unit| unit.state == "active")
            .map(|unit| unit.machine.clone())
            .collect();
        let half = wanted / 2;
        let holds = phases == BTreeMap::from([("idle".into(), half), ("spare".into(), half)])
            && active.len() == units.len()
            && active == machines
            && active == known;
        let phases: Vec<String> = phases
            .iter()
            .map(|(phase, count)| format!("{count} {phase}"))
            .collect();
        let text = format!(
            "none alive that should not be: {} units, {} machines, {} known to the daemon: {}",
            units.len(),
            machines.len(),
            known.len(),
            phases.join(", ")
        );
        Ok((holds, text))
    };
    let settled = wait_until("the pools to be refilled", SOON, || {
        let (holds, text) = look()?;
        Ok(if holds {
            Seen::Done(text)
        } else {
            Seen::NotYet(text)
        })
    });
    match settled {
        Ok(text) => Claim::new(true, text),
        Err(error) => Claim::new(false, format!("none alive that should not be: {error:#}")),
    }
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
                "nothing is left {:.1} s after drain: 0 units, machines, mounts, interfaces, directories, processes, loop devices and registrations",
                start.elapsed().as_secs_f64()
            ),
        ),
        Err(error) => Claim::new(false, format!("nothing is left after drain: {error:#}")),
    }
}

/// REST calls so far, by the stand-in's count: endpoint and how often.
pub(super) fn calls(lab: &Lab) -> Result<BTreeMap<String, u64>> {
    let stats: Value = lab.sim().get("/_sim/stats")?;
    let of = |endpoint: &str| {
        stats["calls"][endpoint].as_object().map_or(0, |by_status| {
            by_status.values().filter_map(Value::as_u64).sum()
        })
    };
    Ok(["mint", "delete", "list", "get", "groups"]
        .map(|endpoint| (endpoint.to_owned(), of(endpoint)))
        .into())
}

/// A runner that waits was minted for a job that is still to come.
pub(super) fn calls_per_job(
    ran: &[Ran],
    config: &Config,
    working: &BTreeMap<String, u64>,
    drained: &BTreeMap<String, u64>,
) -> Claim {
    let count = |calls: &BTreeMap<String, u64>, endpoint: &str| {
        calls.get(endpoint).copied().unwrap_or_default()
    };
    let jobs = ran.len() as u64;
    let waiting: u64 = config
        .pools
        .iter()
        .map(|pool| u64::from(pool.min_idle))
        .sum();
    let spent = count(working, "mint") + count(working, "delete");
    let for_jobs = spent.saturating_sub(waiting);
    #[expect(clippy::cast_precision_loss, reason = "a few dozen calls")]
    let per_job = for_jobs as f64 / jobs as f64;
    Claim::new(
        for_jobs * 100 <= jobs * CALLS_PER_JOB_MAX,
        format!(
            "{per_job:.2} GitHub calls per job: {} mints (of them {waiting} for the runners that wait) and {} deletes while they ran; \
             beside them {} lists, and {} deletes to drain",
            count(working, "mint"),
            count(working, "delete"),
            count(drained, "list"),
            count(drained, "delete") - count(working, "delete"),
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
    use super::*;

    #[test]
    fn a_runner_that_waits_is_no_waste() {
        let calls = |mint, delete| {
            BTreeMap::from([("mint".to_owned(), mint), ("delete".to_owned(), delete)])
        };
        let job = |id: u64| Job {
            id,
            name: "j".into(),
            status: "completed".into(),
            conclusion: None,
            reason: None,
            runner_name: None,
            created_at: 0,
            started_at: None,
            completed_at: None,
            attempts: 1,
            facts: crate::sim::Facts::default(),
        };
        let ran = account::lives((0..20).map(job).collect(), &[], &[]);
        let config = crate::demo::config("http://198.51.100.7:8080");
        assert!(calls_per_job(&ran, &config, &calls(22, 0), &calls(22, 2)).holds);
        assert!(!calls_per_job(&ran, &config, &calls(24, 0), &calls(24, 2)).holds);
    }
}
