//! The account of the second act: how long jobs waited, and in which order they started.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use github_sim::JobView;

use super::jobs::{DEPLOY, pool_of, waited};
use crate::demo::clock::seconds;

/// Number of rows at both ends of the table.
const ENDS: usize = 3;

/// Returns the jobs in the order in which they started.
pub(super) fn in_order(jobs: &[JobView]) -> Vec<&JobView> {
    let mut rows: Vec<&JobView> = jobs.iter().collect();
    rows.sort_by_key(|job| (job.started_at.unwrap_or(u64::MAX), job.id));
    rows
}

/// Returns the smallest, the middle and the largest of some waits.
pub(super) fn spread(mut waits: Vec<u64>) -> [u64; 3] {
    waits.sort_unstable();
    let at = |index: usize| waits.get(index).copied().unwrap_or_default();
    [
        at(0),
        at(waits.len() / 2),
        at(waits.len().saturating_sub(1)),
    ]
}

/// Returns the waits of each pool and repository as a table.
pub(super) fn summary(jobs: &[JobView]) -> String {
    let mut groups: BTreeMap<(&str, String), Vec<u64>> = BTreeMap::new();
    for job in jobs {
        let key = (pool_of(job), job.scope.to_string());
        groups.entry(key).or_default().push(waited(job));
    }
    let mut text = format!(
        "{:<9} {:<14} {:>5} {:>13} {:>9} {:>9}\n",
        "pool", "repository", "jobs", "waited least", "median", "most"
    );
    for ((pool, repository), waits) in groups {
        let count = waits.len();
        let [least, median, most] = spread(waits).map(seconds);
        // Writing to a String cannot fail.
        writeln!(
            text,
            "{pool:<9} {repository:<14} {count:>5} {least:>11.1} s {median:>7.1} s {most:>7.1} s"
        )
        .ok();
    }
    text
}

/// Returns the first and the last jobs and those around the one with a priority, by the order of their starts.
pub(super) fn rows(jobs: &[JobView]) -> String {
    let rows = in_order(jobs);
    let last = rows.len();
    let mut shown: BTreeSet<usize> = (0..ENDS).chain(last.saturating_sub(ENDS)..last).collect();
    if let Some(at) = rows.iter().position(|job| pool_of(job) == DEPLOY) {
        shown.extend(at.saturating_sub(2)..=at + 2);
    }
    shown.retain(|at| *at < last);
    let first = jobs.iter().map(|job| job.created_at).min();
    let first = first.unwrap_or_default();
    let mut text = format!(
        "{:>5}  {:<10} {:<14} {:<8} {:>8} {:>8}\n",
        "start", "job", "repository", "pool", "queued", "waited"
    );
    let mut next = 0;
    for at in shown {
        if at > next {
            text.push_str("    …\n");
        }
        next = at + 1;
        let job = rows[at];
        // Writing to a String cannot fail.
        writeln!(
            text,
            "{next:>5}  {:<10} {:<14} {:<8} {:>6.1} s {:>6.1} s",
            job.name,
            job.scope.to_string(),
            pool_of(job),
            seconds(job.created_at.saturating_sub(first)),
            seconds(waited(job)),
        )
        .ok();
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sim::example_job;

    /// Returns a job that was queued and started at these times.
    pub(in crate::demo::second) fn job(
        id: u64,
        pool: &str,
        repository: &str,
        [queued, started]: [u64; 2],
    ) -> JobView {
        JobView {
            id,
            name: format!("{pool}-{id}"),
            scope: repository.parse().unwrap(),
            labels: vec!["self-hosted".into(), pool.into()],
            created_at: queued,
            started_at: Some(started),
            ..example_job()
        }
    }

    #[test]
    fn a_long_table_is_cut_and_keeps_the_job_with_a_priority() {
        let mut jobs: Vec<JobView> = (1..=40)
            .map(|id| job(id, "build", "acme/widgets", [0, id * 10]))
            .collect();
        jobs.push(job(41, DEPLOY, "acme/widgets", [195, 205]));
        let text = rows(&jobs);
        let starts: Vec<&str> = text
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().next().unwrap())
            .collect();
        assert_eq!(
            starts,
            [
                "1", "2", "3", "…", "19", "20", "21", "22", "23", "…", "39", "40", "41"
            ]
        );
        assert!(text.contains("   21  deploy-41"), "{text}");
    }

    #[test]
    fn waits_are_told_by_pool_and_repository() {
        let jobs = [
            job(1, "build", "acme/widgets", [0, 1000]),
            job(2, "build", "acme/widgets", [0, 5000]),
            job(3, "build", "acme/widgets", [0, 3000]),
            job(4, "build", "acme/gadgets", [0, 2000]),
        ];
        let text = summary(&jobs);
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(words[1][1..4], ["acme/gadgets", "1", "2.0"]);
        assert_eq!(
            words[2],
            [
                "build",
                "acme/widgets",
                "3",
                "1.0",
                "s",
                "3.0",
                "s",
                "5.0",
                "s"
            ]
        );
    }
}
