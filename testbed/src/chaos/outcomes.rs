//! Classifies how every job ended, from the reports of the stand-in and of the jobs themselves. Pure.

use std::collections::{BTreeMap, BTreeSet};

use github_sim::{Conclusion, JobState, JobView, Outcome};

use crate::claims::machine_of;

use super::jobs::Intended;

/// Maximum time after a kill in which a report of the killed container may still arrive, because it was
/// sent before the kill.
const REPORT_DELAY_MS: u64 = 1000;

/// A job that was sent to the stand-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedJob {
    /// The result that its script produces.
    pub intended: Intended,
    /// The stand-in confirmed it. Without a confirmation the job may be there or not.
    pub accepted: bool,
}

/// A kill by the injector that ends jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// Time before the kill, on the stand-in's clock.
    pub from_ms: u64,
    /// Time after the kill.
    pub to_ms: u64,
    /// The containers that were killed.
    pub target: Target,
}

/// The containers that a fault killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The container in this slot: `ci-3`.
    Container(String),
    /// The container of the runner with this name.
    Runner(String),
    /// Every container of the host.
    AllContainers,
}

/// Ends of the jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Number of jobs that succeeded, as intended.
    pub succeeded: usize,
    /// Number of jobs that failed, as intended.
    pub failed: usize,
    /// Number of jobs reported as failed because the injector killed their container.
    pub killed: usize,
    /// Jobs that have not ended.
    pub open: Vec<String>,
    /// Jobs that ended otherwise or vanished: by name, with the facts.
    pub lost: BTreeMap<String, String>,
    /// Jobs that ran more than once: by name, with the facts.
    pub twice: BTreeMap<String, String>,
}

impl Outcomes {
    /// Returns the number of jobs that the stand-in accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.succeeded + self.failed + self.killed + self.open.len() + self.lost.len()
    }
}

/// Classifies every job. `queued` is by the job's name.
#[must_use]
pub fn classify(
    queued: &BTreeMap<String, QueuedJob>,
    jobs: &[JobView],
    kills: &[Kill],
) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for job in jobs {
        let Some(queued) = queued.get(&job.name) else {
            continue;
        };
        classify_one(&mut outcomes, job, queued.intended, kills);
    }
    let known: BTreeSet<&String> = jobs.iter().map(|job| &job.name).collect();
    for (name, queued) in queued {
        if queued.accepted && !known.contains(name) {
            let story = "unknown to the stand-in".into();
            outcomes.lost.insert(name.clone(), story);
        }
    }
    outcomes
}

fn classify_one(outcomes: &mut Outcomes, job: &JobView, intended: Intended, kills: &[Kill]) {
    let begun = containers_that_said(job, "begun ");
    let ended = containers_that_said(job, "ended ");
    let acquired = job
        .assignments
        .iter()
        .filter(|assignment| assignment.outcome == Outcome::Acquired)
        .count();
    if begun.len() > 1 || ended.len() > 1 || acquired > 1 {
        let story = format!(
            "begun by {begun:?}, acquired {acquired} times; {}",
            job.summary()
        );
        outcomes.twice.insert(job.name.clone(), story);
    }
    if job.status != JobState::Completed {
        outcomes.open.push(job.summary());
        return;
    }
    let wanted = match intended {
        Intended::Success => Conclusion::Success,
        Intended::Failure => Conclusion::Failure,
    };
    let as_intended = job.conclusion == Some(wanted);
    let whole = !ended.is_empty() && begun == ended;
    match intended {
        Intended::Success if as_intended && whole => outcomes.succeeded += 1,
        Intended::Failure if as_intended && whole => outcomes.failed += 1,
        Intended::Success | Intended::Failure
            if job.conclusion == Some(Conclusion::Failure) && was_killed(job, kills) =>
        {
            outcomes.killed += 1;
        }
        Intended::Success | Intended::Failure => {
            let story = format!(
                "wanted {wanted}; {}, {}, after {} ms; said {:?}",
                job.summary(),
                job.reason.as_deref().unwrap_or("reported by its runner"),
                job.completed_at
                    .zip(job.started_at)
                    .map_or(0, |(end, start)| end.saturating_sub(start)),
                job.witness
            );
            outcomes.lost.insert(job.name.clone(), story);
        }
    }
}

/// Returns the ids of the containers whose job reported `word`.
fn containers_that_said<'a>(job: &'a JobView, word: &str) -> BTreeSet<&'a str> {
    let lines = job.witness.iter();
    lines.filter_map(|line| line.strip_prefix(word)).collect()
}

/// Returns true if the injector killed the job's container while the job ran.
fn was_killed(job: &JobView, kills: &[Kill]) -> bool {
    let runner = job.runner_name.as_deref().unwrap_or_default();
    let (Some(start), Some(end)) = (job.started_at, job.completed_at) else {
        return false;
    };
    kills.iter().any(|kill| {
        let hit = match &kill.target {
            Target::Container(machine) => machine_of(runner) == machine,
            Target::Runner(name) => name == runner,
            Target::AllContainers => true,
        };
        hit && start <= kill.to_ms + REPORT_DELAY_MS && kill.from_ms <= end
    })
}

#[cfg(test)]
mod tests {
    use github_sim::Assignment;
    use serde_json::{Value, json};

    use super::*;
    use crate::sim::example_job;

    fn job(change: &Value) -> JobView {
        let runner = "testhost-ci-3-00ff";
        let acquired = Assignment {
            runner_id: 1,
            runner_name: runner.into(),
            assigned_at: 1500,
            outcome: Outcome::Acquired,
        };
        let job = JobView {
            name: "job-1".into(),
            runner_name: Some(runner.into()),
            created_at: 1000,
            started_at: Some(2000),
            completed_at: Some(9000),
            assignments: vec![acquired],
            witness: vec!["begun a".into(), "ended a".into()],
            ..example_job()
        };
        let mut job = serde_json::to_value(job).unwrap();
        for (key, value) in change.as_object().unwrap() {
            job[key] = value.clone();
        }
        serde_json::from_value(job).unwrap()
    }

    fn outcomes(intended: Intended, change: &Value, kills: &[Kill]) -> Outcomes {
        let queued = QueuedJob {
            intended,
            accepted: true,
        };
        classify(
            &[("job-1".to_owned(), queued)].into(),
            &[job(change)],
            kills,
        )
    }

    fn kill(machine: &str, at: u64) -> Kill {
        Kill {
            from_ms: at,
            to_ms: at + 10,
            target: Target::Container(machine.into()),
        }
    }

    #[test]
    fn a_job_that_ends_as_intended_is_counted_by_its_intention() {
        assert_eq!(outcomes(Intended::Success, &json!({}), &[]).succeeded, 1);
        let failed = json!({ "conclusion": "failure" });
        assert_eq!(outcomes(Intended::Failure, &failed, &[]).failed, 1);
    }

    #[test]
    fn a_job_that_ends_otherwise_is_lost_unless_its_container_was_killed() {
        let failed = json!({ "conclusion": "failure", "witness": ["begun a"] });
        let hit = [kill("ci-3", 5000)];
        assert_eq!(outcomes(Intended::Success, &failed, &[]).lost.len(), 1);
        assert_eq!(outcomes(Intended::Success, &failed, &hit).killed, 1);
        assert_eq!(outcomes(Intended::Failure, &failed, &hit).killed, 1);
        // Another slot, before the job's start, after the job's end.
        for other in [kill("ci-2", 5000), kill("ci-3", 500), kill("ci-3", 9500)] {
            assert_eq!(outcomes(Intended::Success, &failed, &[other]).lost.len(), 1);
        }
        let cancelled = json!({ "conclusion": "cancelled", "witness": ["begun a"] });
        assert_eq!(outcomes(Intended::Success, &cancelled, &hit).lost.len(), 1);
    }

    #[test]
    fn a_job_that_succeeded_without_having_run_is_lost() {
        let silent = json!({ "witness": [] });
        assert_eq!(outcomes(Intended::Success, &silent, &[]).lost.len(), 1);
    }

    #[test]
    fn a_job_that_began_in_two_containers_ran_twice() {
        let twice = json!({ "witness": ["begun a", "begun b", "ended b"] });
        assert_eq!(outcomes(Intended::Success, &twice, &[]).twice.len(), 1);
        // A report that one container repeats is not a second run.
        let repeated = json!({ "witness": ["begun a", "begun a", "ended a"] });
        let outcomes = outcomes(Intended::Success, &repeated, &[]);
        assert_eq!((outcomes.twice.len(), outcomes.succeeded), (0, 1));
    }

    #[test]
    fn a_job_that_vanished_is_lost_if_it_was_accepted() {
        let queued = |accepted| {
            let queued = QueuedJob {
                intended: Intended::Success,
                accepted,
            };
            [("job-1".to_owned(), queued)].into()
        };
        assert_eq!(classify(&queued(true), &[], &[]).lost.len(), 1);
        assert_eq!(classify(&queued(false), &[], &[]).lost.len(), 0);
    }
}
