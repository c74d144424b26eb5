//! Claims of the second act, each checked on the running host.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use github_sim::{Conclusion, DeliveryView, Endpoint, JobView, ScaleSetCall, ScaleSetView, Stats};
use status::{DeliveryOutcome, WebhookStatus};

use super::account::{in_order, spread};
use super::jobs::{
    ALL, BUDGET, BUILD, BURST, DEPLOY, LATER, NIGHTLY, REPOSITORIES, pool_of, waited,
};
use crate::demo::account::Ran;
use crate::demo::claims::{Claim, said};
use crate::demo::clock::seconds;
use crate::journal::Span;
use crate::lab::Lab;

/// For a state that comes by itself, on a machine that is busy with other things.
pub(super) const SOON: Duration = Duration::from_mins(1);

/// A job that woke a pool.
pub(super) struct Woken {
    /// Number of containers before.
    pub(super) units_before: usize,
    pub(super) job: JobView,
    /// Delivery that told of the job, and the number of deliveries with a wrong signature or none.
    pub(super) delivery: Option<DeliveryView>,
    pub(super) unsigned: u64,
    /// The end of the pool's runner.
    pub(super) zero: Ended,
}

/// The time until nothing of any slot was left, or the reason why something is.
pub(super) type Ended = Result<Duration>;

/// Largest difference between the median waits of two repositories, in parts of the longer one.
const FAIR_PART: u64 = 5;
/// The least difference that is unfair, for jobs that wait for a short time.
const FAIR_MS: u64 = 500;

/// Waits until nothing of any slot is left, and returns the time since `since`.
pub(super) fn await_zero(lab: &Lab, since: Instant) -> Ended {
    lab.await_nothing_left(SOON)?;
    Ok(since.elapsed())
}

/// Returns the number of deliveries that the host refused.
pub(super) fn refused(webhook: &WebhookStatus) -> u64 {
    use DeliveryOutcome::{Malformed, NotRecorded, TooLarge, Unsigned, WrongSignature};
    [Malformed, NotRecorded, TooLarge, Unsigned, WrongSignature]
        .iter()
        .filter_map(|outcome| webhook.deliveries.get(outcome))
        .sum()
}

pub(super) fn woke(woken: &Woken) -> Claim {
    let code = woken.delivery.as_ref().and_then(|delivery| delivery.code);
    let answer = code.map_or_else(|| "not".to_owned(), |code| format!("with {code}"));
    Claim::new(
        woken.units_before == 0
            && code == Some(202)
            && woken.unsigned == 0
            && woken.job.conclusion == Some(Conclusion::Success)
            && woken.job.assignments.len() == 1,
        format!(
            "a pool at zero woke: {} units, then a signed delivery, answered {answer}, and its job ran {:.1} s after it was queued",
            woken.units_before,
            seconds(waited(&woken.job)),
        ),
    )
}

pub(super) fn back_at_zero(woken: &Woken) -> Claim {
    ended("the pool is back at zero", &woken.zero)
}

/// After the last job.
pub(super) fn at_zero(lab: &Lab, since: Instant) -> Claim {
    ended("all pools are back at zero", &await_zero(lab, since))
}

fn ended(what: &str, zero: &Ended) -> Claim {
    match zero {
        Ok(time) => Claim::new(
            true,
            format!(
                "{what}: no unit, machine, mount, interface and registration {:.1} s after the job's end",
                time.as_secs_f64()
            ),
        ),
        Err(error) => Claim::new(false, format!("{what}: {error:#}")),
    }
}

/// `registered` is the number of runners that GitHub ever had.
pub(super) fn ran_once(ran: &[Ran], registered: usize) -> Claim {
    let is_good = |ran: &&Ran| {
        ran.job.conclusion == Some(Conclusion::Success)
            && ran.job.assignments.len() == 1
            && ran.verdict.as_deref() == Some("job_done")
    };
    let good = ran.iter().filter(is_good).count();
    let of_the_set = ran.iter().filter(|ran| pool_of(&ran.job) == BUILD).count();
    let runners: BTreeSet<_> = ran.iter().map(|ran| ran.job.runner_id).collect();
    let mut text = format!(
        "{} jobs, {of_the_set} of them of the scale set, ran once each: {good} succeeded at the first try, on {} runners; \
         {registered} runners were registered, one of them for the first job",
        ran.len(),
        runners.len(),
    );
    if let Some(bad) = ran.iter().find(|ran| !is_good(ran)) {
        text.push_str(&said(&bad.job));
    }
    let all = ALL - 1;
    let holds =
        [ran.len(), good, runners.len()] == [all; 3] && of_the_set == BURST && registered == ALL;
    Claim::new(holds, text)
}

/// Returns the largest number of containers at one moment, from the start of a unit to its end.
fn peak(units: &[Span]) -> usize {
    let mut changes: Vec<(u64, bool)> = Vec::new();
    for unit in units {
        changes.push((unit.starting_us, true));
        changes.extend(unit.ended_us.map(|end| (end, false)));
    }
    // An end comes before a start of the same microsecond.
    changes.sort_unstable();
    let (mut now, mut peak) = (0_usize, 0);
    for (_, is_start) in changes {
        now = if is_start {
            now + 1
        } else {
            now.saturating_sub(1)
        };
        peak = peak.max(now);
    }
    peak
}

/// A container that starts for a job makes room for one with a priority, so there may be more units than jobs.
pub(super) fn within_budget(units: &[Span]) -> Claim {
    let peak = peak(units);
    Claim::new(
        peak == BUDGET && units.len() >= ALL,
        format!(
            "never above the budget of {BUDGET} runners: {} units ran, at most {peak} at once, by systemd's journal",
            units.len()
        ),
    )
}

/// Returns the largest number of younger jobs that started before a job.
fn overtaken_most(jobs: &[&JobView]) -> usize {
    let by_younger = |(at, job): (usize, &&JobView)| {
        let before = jobs.iter().take(at);
        before.filter(|other| other.id > job.id).count()
    };
    jobs.iter()
        .enumerate()
        .map(by_younger)
        .max()
        .unwrap_or_default()
}

pub(super) fn fair(jobs: &[JobView]) -> Claim {
    let mut builds = in_order(jobs);
    builds.retain(|job| pool_of(job) == BUILD);
    let median_of = |repository: &str| {
        let of = builds
            .iter()
            .filter(|job| job.scope.to_string() == repository);
        let [_, median, _] = spread(of.map(|job| waited(job)).collect());
        median
    };
    let [one, other] = REPOSITORIES.map(median_of);
    let apart = one.abs_diff(other);
    let overtaken = overtaken_most(&builds);
    let order = match overtaken {
        0 => "the scale set's jobs started by age".to_owned(),
        most => format!("no job of the scale set started after more than {most} younger ones"),
    };
    Claim::new(
        apart <= FAIR_MS.max(one.max(other) / FAIR_PART) && overtaken <= BUDGET,
        format!(
            "both repositories had their share: median waits of {:.1} s and {:.1} s, and {order}",
            seconds(one),
            seconds(other)
        ),
    )
}

/// A place may become free between the deliveries, so one of the nightly jobs may start before.
pub(super) fn jumped(jobs: &[JobView]) -> Claim {
    let Some(deploy) = jobs.iter().find(|job| pool_of(job) == DEPLOY) else {
        return Claim::new(false, "the job with a priority is missing".into());
    };
    let overtook = |pool: &str| {
        let of = jobs.iter().filter(|job| pool_of(job) == pool);
        let later = |job: &&JobView| job.id < deploy.id && job.started_at > deploy.started_at;
        of.filter(later).count()
    };
    let (nightly, builds) = (overtook(LATER), overtook(BUILD));
    Claim::new(
        nightly + 1 >= NIGHTLY && builds > 0,
        format!(
            "the job with a priority was queued last and overtook {}: {nightly} of {NIGHTLY} in the host's queue, {builds} of the scale \
             set at GitHub; it waited {:.1} s",
            nightly + builds,
            seconds(waited(deploy))
        ),
    )
}

/// The daemon has stopped.
pub(super) fn set_is_left(sets: &[ScaleSetView], calls: &Stats) -> Claim {
    let left: Vec<&ScaleSetView> = sets.iter().filter(|set| !set.deleted).collect();
    let deletions = calls.calls_of(Endpoint::ScaleSet(ScaleSetCall::SetDelete).name());
    let open = left
        .iter()
        .filter(|set| set.session_owner.is_some())
        .count();
    let names: Vec<&str> = left.iter().map(|set| set.name.as_str()).collect();
    Claim::new(
        left.len() == 1 && sets.len() == 1 && deletions == 0 && open == 0,
        format!(
            "the scale set stays when the daemon stops: {} at GitHub, {open} sessions, {deletions} deletions",
            names.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::account::tests::job;
    use super::*;

    fn unit(from: u64, to: u64) -> Span {
        Span {
            starting_us: from,
            ended_us: Some(to),
            ..Span::default()
        }
    }

    #[test]
    fn the_peak_counts_units_from_their_start_to_their_end() {
        assert_eq!(peak(&[unit(0, 10), unit(10, 20), unit(5, 15)]), 2);
        assert_eq!(peak(&[unit(0, 10), unit(9, 20), unit(5, 15)]), 3);
        let never_ended = Span {
            ended_us: None,
            ..unit(0, 0)
        };
        assert_eq!(peak(&[never_ended, unit(5, 6)]), 2);
    }

    fn burst(deploy_started: u64) -> Vec<JobView> {
        let build = |id: u64| {
            let repository = REPOSITORIES[usize::try_from(id % 2).unwrap()];
            job(id, BUILD, repository, [0, id * 100])
        };
        let mut jobs: Vec<JobView> = (1..=60).map(build).collect();
        jobs.extend((61..=64).map(|id| job(id, LATER, REPOSITORIES[1], [1000, 2000 + id])));
        jobs.push(job(65, DEPLOY, REPOSITORIES[0], [1000, deploy_started]));
        jobs
    }

    #[test]
    fn a_job_that_starts_after_all_others_jumped_none() {
        let early = jumped(&burst(1100));
        assert!(
            early.holds && early.text.contains("overtook 53: 4 of 4"),
            "{}",
            early.text
        );
        assert!(!jumped(&burst(9000)).holds);
    }

    #[test]
    fn a_repository_that_waits_twice_as_long_has_no_share() {
        let even = fair(&burst(1100));
        assert!(
            even.holds && even.text.contains("started by age"),
            "{}",
            even.text
        );
        let mut uneven = burst(1100);
        for job in &mut uneven {
            if job.scope.to_string() == REPOSITORIES[1] {
                job.started_at = job.started_at.map(|start| start * 2);
            }
        }
        assert!(!fair(&uneven).holds);
    }
}
