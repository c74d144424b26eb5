//! The jobs of a run: a pure stream, by a seed.

use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use github_sim::JobSpec;

use crate::net::GITHUB;
use crate::sim::{PORT, pool_job};

/// The result that a job's script produces when it is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intended {
    /// Success.
    Success,
    /// A step that fails.
    Failure,
}

/// A job to be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDraft {
    /// Unique name.
    pub name: String,
    /// The result that its script produces.
    pub intended: Intended,
    pool: &'static str,
    millis: u64,
    races: u32,
}

impl JobDraft {
    /// Returns a short job that `races` runners acquire too late before one gets it.
    #[must_use]
    pub fn raced(name: String, races: u32) -> Self {
        Self {
            name,
            intended: Intended::Success,
            pool: "ci",
            millis: 500,
            races,
        }
    }

    /// Returns the job in the stand-in's form.
    #[must_use]
    pub fn job(&self) -> JobSpec {
        JobSpec {
            lose_races: self.races,
            ..pool_job(&self.name, self.pool, &script(self))
        }
    }
}

/// An endless stream of jobs, each with the pause before it.
#[derive(Debug)]
pub struct JobStream {
    rng: ChaCha8Rng,
    next: u64,
}

impl JobStream {
    /// Returns the jobs of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            // Another seed than the plan's, so that a change of one leaves the other as it is.
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x006a_6f62),
            next: 1,
        }
    }
}

impl Iterator for JobStream {
    type Item = (Duration, JobDraft);

    fn next(&mut self) -> Option<Self::Item> {
        let rng = &mut self.rng;
        let millis = match rng.random_range(0..100) {
            0..40 => rng.random_range(100..1500),
            40..85 => rng.random_range(1500..7000),
            _ => rng.random_range(7000..20_000),
        };
        let intended = if rng.random_ratio(15, 100) {
            Intended::Failure
        } else {
            Intended::Success
        };
        let pool = if rng.random_ratio(20, 100) {
            "big"
        } else {
            "ci"
        };
        let pause = Duration::from_millis(rng.random_range(300..2200));
        let name = format!("job-{}", self.next);
        self.next += 1;
        let draft = JobDraft {
            name,
            intended,
            pool,
            millis,
            races: 0,
        };
        Some((pause, draft))
    }
}

/// Returns the job's script. It reports its start and its end to GitHub with an id of its run, so that a job
/// that runs twice reports two ids. It repeats each report until GitHub has accepted it.
fn script(draft: &JobDraft) -> String {
    let JobDraft {
        intended, millis, ..
    } = draft;
    let code = match intended {
        Intended::Success => 0,
        Intended::Failure => 1,
    };
    format!(
        r#"tell() {{
  local body="{{\"text\":\"$1\"}}" answer
  until answer=$(timeout 2 bash -c 'exec 3<>/dev/tcp/{GITHUB}/{PORT} && printf "POST /_sim/jobs/%s/witness HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %s\r\n\r\n%s" "$1" "${{#2}}" "$2" >&3 && read -r _ code _ <&3 && echo "$code"' tell "$GITHUB_RUN_ID" "$body" 2>/dev/null) && [ "$answer" = 204 ]
  do sleep 0.3; done
}}
run=$(cat /proc/sys/kernel/random/uuid)
tell "begun $run"
sleep {}.{:03}
tell "ended $run"
exit {code}
"#,
        millis / 1000,
        millis % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_jobs() {
        let jobs = |seed| JobStream::new(seed).take(100).collect::<Vec<_>>();
        assert_eq!(jobs(1), jobs(1));
        assert_ne!(jobs(1), jobs(2));
    }

    #[test]
    fn some_jobs_fail_and_all_end_before_their_lock_lapses() {
        let drafts = JobStream::new(1).take(500);
        let jobs: Vec<JobDraft> = drafts.map(|(_, draft)| draft).collect();
        let bad = jobs
            .iter()
            .filter(|draft| draft.intended == Intended::Failure)
            .count();
        assert!((40..130).contains(&bad), "{bad}");
        assert!(jobs.iter().all(|draft| draft.millis < 20_000));
    }
}
