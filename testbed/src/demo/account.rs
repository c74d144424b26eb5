//! The account of a demo: which job ran where, and what that proves.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use github_sim::JobView;

use crate::journal::{Entry, Span};

use super::clock::seconds;
use super::jobs;

/// A job with the run of the unit that it ran in.
pub(super) struct Ran {
    pub(super) job: JobView,
    /// The container, as systemd told it.
    pub(super) span: Option<Span>,
    /// Verdict of the daemon.
    pub(super) verdict: Option<String>,
}

/// The machine that a job ran on: a runner's name is `<host>-<machine>-<random>`, read from the right.
pub(super) fn machine_of(job: &JobView) -> Option<&str> {
    let name = job.runner_name.as_deref()?;
    let (rest, _random) = name.rsplit_once('-')?;
    let (pool, _slot) = rest.rsplit_once('-')?;
    let start = pool.rfind('-').map_or(0, |dash| dash + 1);
    rest.get(start..)
}

/// Finds the run of a unit and the verdict of each job, as systemd and the daemon told them.
pub(super) fn spans_of(jobs: Vec<JobView>, spans: &[Span], daemon: &[Entry]) -> Vec<Ran> {
    let find = |job: JobView| {
        let unit = machine_of(&job)
            .and_then(|machine| machine.split_once('-'))
            .map(|(pool, slot)| format!("runner-{pool}@{slot}.service"));
        let at_us = job.started_at.unwrap_or_default() * 1000;
        let covers = |span: &&Span| {
            Some(&span.unit) == unit.as_ref()
                && span.starting_us <= at_us
                && span.ended_us.is_none_or(|end| at_us <= end)
        };
        let span = spans.iter().find(covers).cloned();
        let name = job.runner_name.as_deref().unwrap_or_default();
        let verdict = daemon
            .iter()
            .find(|entry| {
                !name.is_empty() && entry.get("RUNNER") == name && !entry.get("VERDICT").is_empty()
            })
            .map(|entry| entry.get("VERDICT").to_owned());
        Ran { job, span, verdict }
    };
    jobs.into_iter().map(find).collect()
}

impl Ran {
    /// Machine and the beginning of the name that systemd gave this run.
    pub(super) fn container(&self) -> String {
        let machine = machine_of(&self.job).unwrap_or("?");
        let id = self
            .span
            .as_ref()
            .map_or("?", |span| span.invocation.get(..8).unwrap_or("?"));
        format!("{machine} {id}")
    }

    fn ended(&self) -> String {
        let conclusion = self.job.conclusion.map(|conclusion| conclusion.to_string());
        let conclusion = conclusion.as_deref().unwrap_or("none");
        let verdict = self.verdict.as_deref().unwrap_or("no verdict");
        format!("{conclusion}, {verdict}")
    }
}

/// The table: who ran what where, in the order in which they started.
pub(super) fn table(ran: &[Ran]) -> String {
    let mut rows: Vec<&Ran> = ran.iter().collect();
    rows.sort_by_key(|ran| ran.job.started_at);
    let wait = |job: &JobView| {
        job.started_at
            .map_or(0, |start| start.saturating_sub(job.created_at))
    };
    let run = |job: &JobView| {
        job.completed_at
            .zip(job.started_at)
            .map_or(0, |(end, start)| end.saturating_sub(start))
    };
    let mut text = format!(
        "{:<12} {:<28} {:<15} {:>7} {:>7}  {}\n",
        "job", "runner", "container", "waited", "ran", "verdict"
    );
    for row in rows {
        let job = &row.job;
        // Writing to a String cannot fail.
        writeln!(
            text,
            "{:<12} {:<28} {:<15} {:>5.1} s {:>5.1} s  {}",
            job.name,
            job.runner_name.as_deref().unwrap_or("-"),
            row.container(),
            seconds(wait(job)),
            seconds(run(job)),
            row.ended()
        )
        .ok();
    }
    text
}

/// Returns the number of containers that the jobs ran in: by systemd's ids of their starts, and by the
/// boot ids that the containers had.
pub(super) fn containers(ran: &[Ran]) -> (usize, usize) {
    let runs: BTreeSet<&str> = ran
        .iter()
        .filter_map(|ran| Some(ran.span.as_ref()?.invocation.as_str()))
        .collect();
    let boots: BTreeSet<&str> = ran
        .iter()
        .filter_map(|ran| jobs::boot_id(&ran.job))
        .collect();
    (runs.len(), boots.len())
}

/// Milliseconds from a job's end to the start of the next job in the same slot, where that one was
/// queued already: what it costs a waiting job that every job gets a new container. Sorted.
pub(super) fn turnarounds(ran: &[Ran]) -> Vec<u64> {
    let mut jobs: Vec<&JobView> = ran.iter().map(|ran| &ran.job).collect();
    jobs.sort_by_key(|job| (machine_of(job).map(str::to_owned), job.started_at));
    let gap = |pair: &[&JobView]| {
        let [before, after] = pair else { return None };
        let (end, start) = (before.completed_at?, after.started_at?);
        (machine_of(before) == machine_of(after) && after.created_at <= end)
            .then(|| start.saturating_sub(end))
    };
    let mut gaps: Vec<u64> = jobs.windows(2).filter_map(gap).collect();
    gaps.sort_unstable();
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::example_job;

    fn job(runner: &str, queued: u64, started: u64, ended: u64) -> JobView {
        JobView {
            id: started,
            runner_name: Some(runner.into()),
            created_at: queued,
            started_at: Some(started),
            completed_at: Some(ended),
            ..example_job()
        }
    }

    fn span(unit: &str, invocation: &str, from: u64, to: Option<u64>) -> Span {
        Span {
            unit: unit.into(),
            invocation: invocation.into(),
            starting_us: from * 1000,
            ended_us: to.map(|to| to * 1000),
            ..Span::default()
        }
    }

    #[test]
    fn a_machine_is_read_from_the_right_of_a_runners_name() {
        assert_eq!(machine_of(&job("testhost-ci-1-3fx", 0, 1, 2)), Some("ci-1"));
        assert_eq!(machine_of(&job("a-b-big-12-3fx", 0, 1, 2)), Some("big-12"));
        assert_eq!(machine_of(&job("strange", 0, 1, 2)), None);
    }

    #[test]
    fn a_job_is_in_the_life_that_covers_its_start() {
        let spans = [
            span("runner-ci@1.service", "first", 0, Some(50)),
            span("runner-ci@2.service", "other", 0, None),
            span("runner-ci@1.service", "second", 60, None),
        ];
        let ran = spans_of(
            vec![job("h-ci-1-a", 0, 10, 40), job("h-ci-1-b", 0, 70, 90)],
            &spans,
            &[],
        );
        let names: Vec<_> = ran.iter().map(Ran::container).collect();
        assert_eq!(names, ["ci-1 ?", "ci-1 ?"]);
        assert_eq!(ran[0].span.as_ref().unwrap().invocation, "first");
        assert_eq!(ran[1].span.as_ref().unwrap().invocation, "second");
        assert_eq!(containers(&ran), (2, 0));
    }

    #[test]
    fn only_a_job_that_waited_counts_as_turnaround() {
        let jobs = vec![
            job("h-ci-1-a", 0, 10, 40),
            job("h-ci-1-b", 0, 47, 90),
            job("h-ci-1-c", 95, 99, 100),
            job("h-ci-2-d", 0, 41, 42),
        ];
        assert_eq!(turnarounds(&spans_of(jobs, &[], &[])), [7]);
    }
}
