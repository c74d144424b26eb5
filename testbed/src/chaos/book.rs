//! The book of oracles: what became of every job, by the account of the stand-in and of the jobs
//! themselves. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::claims::machine_of;
use crate::sim::Job;

use super::jobs::Design;

/// How long after a blow its victim may still be heard, in milliseconds: what it had said before was
/// on its way.
const ECHO_MS: u64 = 1000;

/// A job that was offered to the stand-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// How it is meant to end.
    pub design: Design,
    /// Whether the stand-in said that it took it. Else nobody knows.
    pub accepted: bool,
}

/// A blow of ours that ends jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Before it, by the clock of the stand-in.
    pub from_ms: u64,
    /// After it.
    pub to_ms: u64,
    /// Who was hit.
    pub whom: Whom,
}

/// Who was hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// The container that was in this slot: `ci-3`.
    Machine(String),
    /// A runner by its name.
    Runner(String),
    /// All that ran.
    Everybody,
}

/// What became of the jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reckoning {
    /// Ended well, as designed.
    pub done: usize,
    /// Failed, as designed.
    pub failed: usize,
    /// Reported failed, because we killed their container.
    pub cut: usize,
    /// Not over.
    pub open: Vec<String>,
    /// Ended otherwise, or vanished: by name, with what is known.
    pub lost: BTreeMap<String, String>,
    /// Ran more than once.
    pub twice: BTreeMap<String, String>,
}

impl Reckoning {
    /// Jobs that the stand-in took.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.done + self.failed + self.cut + self.open.len() + self.lost.len()
    }
}

/// Reckons. `sent` is by name.
#[must_use]
pub fn reckon(sent: &BTreeMap<String, Sent>, jobs: &[Job], cuts: &[Cut]) -> Reckoning {
    let mut book = Reckoning::default();
    for job in jobs {
        let Some(sent) = sent.get(&job.name) else {
            continue;
        };
        enter(&mut book, job, sent.design, cuts);
    }
    let known: BTreeSet<&String> = jobs.iter().map(|job| &job.name).collect();
    for (name, sent) in sent {
        if sent.accepted && !known.contains(name) {
            book.lost
                .insert(name.clone(), "unknown to the stand-in".into());
        }
    }
    book
}

fn enter(book: &mut Reckoning, job: &Job, design: Design, cuts: &[Cut]) {
    let begun = said(job, "begun ");
    let ended = said(job, "ended ");
    let acquired = job
        .assignments
        .iter()
        .filter(|assignment| assignment.outcome == "acquired")
        .count();
    if begun.len() > 1 || ended.len() > 1 || acquired > 1 {
        let story = format!(
            "begun by {begun:?}, acquired {acquired} times; {}",
            job.summary()
        );
        book.twice.insert(job.name.clone(), story);
    }
    if job.status != "completed" {
        book.open.push(job.summary());
        return;
    }
    let wanted = match design {
        Design::Well => "success",
        Design::Badly => "failure",
    };
    let as_designed = job.conclusion.as_deref() == Some(wanted);
    let whole = !ended.is_empty() && begun == ended;
    match design {
        Design::Well if as_designed && whole => book.done += 1,
        Design::Badly if as_designed && whole => book.failed += 1,
        Design::Well | Design::Badly
            if job.conclusion.as_deref() == Some("failure") && is_cut(job, cuts) =>
        {
            book.cut += 1;
        }
        Design::Well | Design::Badly => {
            let story = format!(
                "wanted {wanted}; {}, {}, after {} ms; said {:?}",
                job.summary(),
                job.reason.as_deref().unwrap_or("reported by its runner"),
                job.completed_at
                    .zip(job.started_at)
                    .map_or(0, |(end, start)| end.saturating_sub(start)),
                job.witness
            );
            book.lost.insert(job.name.clone(), story);
        }
    }
}

/// The lives that said this.
fn said<'a>(job: &'a Job, word: &str) -> BTreeSet<&'a str> {
    let lines = job.witness.iter();
    lines.filter_map(|line| line.strip_prefix(word)).collect()
}

/// Whether a blow of ours hit the job's container while the job ran.
fn is_cut(job: &Job, cuts: &[Cut]) -> bool {
    let runner = job.runner_name.as_deref().unwrap_or_default();
    let (Some(start), Some(end)) = (job.started_at, job.completed_at) else {
        return false;
    };
    cuts.iter().any(|cut| {
        let hit = match &cut.whom {
            Whom::Machine(machine) => machine_of(runner) == machine,
            Whom::Runner(name) => name == runner,
            Whom::Everybody => true,
        };
        hit && start <= cut.to_ms + ECHO_MS && cut.from_ms <= end
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(change: &Value) -> Job {
        let mut job = json!({
            "id": 1, "name": "job-1", "status": "completed", "conclusion": "success", "reason": null,
            "runner_name": "testhost-ci-3-00ff", "created_at": 1000, "started_at": 2000,
            "completed_at": 9000, "attempts": 1, "facts": {},
            "assignments": [{ "outcome": "acquired" }],
            "witness": ["begun a", "ended a"],
        });
        for (key, value) in change.as_object().unwrap() {
            job[key] = value.clone();
        }
        serde_json::from_value(job).unwrap()
    }

    fn book(design: Design, change: &Value, cuts: &[Cut]) -> Reckoning {
        let sent = Sent {
            design,
            accepted: true,
        };
        reckon(&[("job-1".to_owned(), sent)].into(), &[job(change)], cuts)
    }

    fn cut(machine: &str, at: u64) -> Cut {
        Cut {
            from_ms: at,
            to_ms: at + 10,
            whom: Whom::Machine(machine.into()),
        }
    }

    #[test]
    fn a_job_that_ends_as_designed_is_counted_by_its_design() {
        assert_eq!(book(Design::Well, &json!({}), &[]).done, 1);
        let failed = json!({ "conclusion": "failure" });
        assert_eq!(book(Design::Badly, &failed, &[]).failed, 1);
    }

    #[test]
    fn a_job_that_ends_otherwise_is_lost_unless_its_container_was_killed() {
        let failed = json!({ "conclusion": "failure", "witness": ["begun a"] });
        assert_eq!(book(Design::Well, &failed, &[]).lost.len(), 1);
        assert_eq!(book(Design::Well, &failed, &[cut("ci-3", 5000)]).cut, 1);
        assert_eq!(book(Design::Badly, &failed, &[cut("ci-3", 5000)]).cut, 1);
        // Another slot, before it began, after it ended.
        for other in [cut("ci-2", 5000), cut("ci-3", 500), cut("ci-3", 9500)] {
            assert_eq!(book(Design::Well, &failed, &[other]).lost.len(), 1);
        }
        let cancelled = json!({ "conclusion": "cancelled", "witness": ["begun a"] });
        assert_eq!(
            book(Design::Well, &cancelled, &[cut("ci-3", 5000)])
                .lost
                .len(),
            1
        );
    }

    #[test]
    fn a_job_that_says_it_failed_without_having_run_is_lost() {
        let silent = json!({ "witness": [] });
        assert_eq!(book(Design::Well, &silent, &[]).lost.len(), 1);
    }

    #[test]
    fn a_job_of_two_lives_ran_twice() {
        let twice = json!({ "witness": ["begun a", "begun b", "ended b"] });
        assert_eq!(book(Design::Well, &twice, &[]).twice.len(), 1);
        // Told twice by one life is not run twice.
        let heard = json!({ "witness": ["begun a", "begun a", "ended a"] });
        let book = book(Design::Well, &heard, &[]);
        assert_eq!((book.twice.len(), book.done), (0, 1));
    }

    #[test]
    fn a_job_that_vanished_is_lost_if_it_was_accepted() {
        let sent = |accepted| {
            let sent = Sent {
                design: Design::Well,
                accepted,
            };
            [("job-1".to_owned(), sent)].into()
        };
        assert_eq!(reckon(&sent(true), &[], &[]).lost.len(), 1);
        assert_eq!(reckon(&sent(false), &[], &[]).lost.len(), 0);
    }
}
